package listener

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/shoalmq/shoal/broker"
)

// describeTLS says what went wrong in a handshake in words that help whoever
// looks after the clients.
func describeTLS(err error) *broker.OpenError {
	var notTLS tls.RecordHeaderError
	var unverified *tls.CertificateVerificationError
	var refused *certificateError
	var alert *net.OpError
	switch {
	case errors.As(err, &notTLS):
		return &broker.OpenError{Kind: broker.OpenNotTLS, Err: fmt.Errorf("%s on a TLS listener: %w", guess(notTLS.RecordHeader[:]), err)}
	case errors.As(err, &unverified):
		return &broker.OpenError{Kind: broker.OpenCertificate, Err: fmt.Errorf("client certificate: %w", unverified.Err)}
	case errors.As(err, &refused):
		return &broker.OpenError{Kind: broker.OpenCertificate, Err: err}
	case strings.Contains(err.Error(), "didn't provide a certificate"):
		return &broker.OpenError{Kind: broker.OpenCertificate, Err: errors.New("client certificate: none was shown")}
	case errors.As(err, &alert) && alert.Op == "remote error":
		return &broker.OpenError{Kind: broker.OpenTLS, Err: fmt.Errorf("the client ended the handshake (does it trust this server's certificate?): %w", alert.Err)}
	}
	return &broker.OpenError{Kind: kindOf(err, broker.OpenTLS), Err: err}
}

// guess says what the first bytes of a client look like.
func guess(b []byte) string {
	switch {
	case len(b) > 0 && b[0] == 0x10:
		return "MQTT without TLS"
	case len(b) > 1 && b[0] == 0x16 && b[1] == 0x03:
		return "TLS"
	case len(b) > 4 && (string(b[:5]) == "PROXY" || string(b[:4]) == "\r\n\r\n"):
		return "a PROXY header from an address that is not in proxy-protocol-from"
	case len(b) > 3 && (string(b[:4]) == "GET " || string(b[:4]) == "POST" || string(b[:4]) == "HEAD"):
		return "HTTP without TLS"
	}
	return "neither TLS nor MQTT"
}
