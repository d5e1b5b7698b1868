package auth

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"time"
)

// HTTPConfig says how a back end is spoken to.
type HTTPConfig struct {
	// CAFile has the authorities that its certificate may be of; those of the
	// system if empty.
	CAFile string
	// CertFile and KeyFile prove who we are, both or neither.
	CertFile, KeyFile string
	// HeadersFile has lines "Name: value" that go with each request, such as
	// Authorization. It is a secret.
	HeadersFile string

	headers http.Header
}

// open checks the configuration and makes a client. Redirects are not followed:
// they would carry secrets elsewhere. Without TLS only this host is spoken to.
func (c *HTTPConfig) open(address string) (*http.Client, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, err
	case u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("%q: want https://host/path", address)
	case u.Scheme == "http" && !onThisHost(u.Hostname()):
		return nil, fmt.Errorf("%q: want https: what is sent and believed must not be read or changed on its way (http is for this host only)", address)
	case u.User != nil:
		return nil, fmt.Errorf("url of host %s: has a password in it; put it into a headers-file", u.Host)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		data, err := readSmall(c.CAFile)
		if err != nil {
			return nil, err
		}
		if config.RootCAs = x509.NewCertPool(); !config.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%s: no certificate in PEM", c.CAFile)
		}
	}
	if c.CertFile != "" || c.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("certificate for %s: %w", u.Host, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	if c.HeadersFile != "" {
		if err := c.readHeaders(); err != nil {
			return nil, err
		}
	}
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig: config, ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment,
			MaxIdleConnsPerHost: maxCallbacks, IdleConnTimeout: time.Minute,
			MaxResponseHeaderBytes: maxAnswerBytes,
		},
	}, nil
}

func (c *HTTPConfig) readHeaders() error {
	data, err := readSmall(c.HeadersFile)
	if err != nil {
		return err
	}
	data = append(bytes.TrimRight(data, "\r\n"), "\r\n\r\n"...)
	headers, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(data))).ReadMIMEHeader()
	if err != nil || len(headers) == 0 {
		return errors.Join(fmt.Errorf("%s: want lines \"Name: value\"", c.HeadersFile), err)
	}
	c.headers = http.Header(headers)
	return nil
}

// sign puts the headers into a request.
func (c *HTTPConfig) sign(r *http.Request) {
	for name, values := range c.headers {
		r.Header[name] = values
	}
}

func onThisHost(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
