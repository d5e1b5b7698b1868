package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/shoalmq/shoal/broker"
)

// CallbackConfig says how an HTTP back end is asked. Zero values mean the
// defaults named.
type CallbackConfig struct {
	// URL gets a POST for each client that is not in the cache.
	URL    string
	Client HTTPConfig
	// Timeout is how long an answer may take: 5 s.
	Timeout time.Duration
	// CacheAllowed and CacheDenied are for how long an answer holds: 0, which is
	// not at all.
	CacheAllowed, CacheDenied time.Duration
	// Now is the time; time.Now if nil.
	Now func() time.Time
}

// Callback asks an HTTP back end. It sends a JSON object,
//
//	{"clientid": "c", "username": "u", "password": "p", "peerhost": "10.0.0.7",
//	 "listener": "mqtt", "protocol": 5, "cert_common_name": "device-7"}
//
// without what there is not, and wants 200 with another one,
//
//	{"result": "allow", "username": "u", "client_id": "c", "groups": ["g"],
//	 "expire_at": 1767225600, "acl": {"pub": ["a/%c/#"], "sub": ["b"]}}
//
// of which only result is demanded: "allow", "deny", or "ignore", which leaves
// the client to the next of the chain. Whatever else comes, or does not come in
// time, is an error, and refuses the client.
//
// At most maxCallbacks requests are under way; more clients wait for their turn.
// After breakAfter failures in a row the back end is left alone for breakFor:
// clients are refused at once meanwhile, and then one of them is the probe.
type Callback struct {
	config  CallbackConfig
	client  *http.Client
	cache   *answerCache // nil for none
	turns   chan struct{}
	breaker breaker
}

// NewCallback checks the configuration. Close it after use.
func NewCallback(c CallbackConfig) (*Callback, error) {
	or(&c.Timeout, 5*time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
	client, err := c.Client.open(c.URL)
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	b := &Callback{config: c, client: client, turns: make(chan struct{}, maxCallbacks), breaker: breaker{now: c.Now}}
	if c.CacheAllowed > 0 || c.CacheDenied > 0 {
		b.cache = newAnswerCache(c.Now)
	}
	return b, nil
}

// Close gives idle connections up.
func (b *Callback) Close() { b.client.CloseIdleConnections() }

// question is the body of a request.
type question struct {
	ClientID   string  `json:"clientid"`
	Username   *string `json:"username,omitempty"`
	Password   *string `json:"password,omitempty"`
	PeerHost   string  `json:"peerhost,omitempty"`
	Listener   string  `json:"listener,omitempty"`
	Protocol   int     `json:"protocol"`
	CommonName string  `json:"cert_common_name,omitempty"`
}

// answer is the body of a response.
type answer struct {
	Result   string   `json:"result"`
	Username *string  `json:"username"`
	ClientID string   `json:"client_id"`
	Groups   []string `json:"groups"`
	// ExpireAt is in seconds since 1970, as EMQX has it.
	ExpireAt *int64 `json:"expire_at"`
	// ACL is nil if there is none. null is one that allows nothing.
	ACL json.RawMessage `json:"acl"`
}

// Authenticate is part of broker.Authenticator.
func (b *Callback) Authenticate(ctx context.Context, c *broker.Credentials) (*broker.Identity, error) {
	if !utf8.Valid(c.Password) { // JSON would make two of them one
		return nil, fmt.Errorf("%w: the password is not UTF-8", broker.ErrBadCredentials)
	}
	body, err := json.Marshal(ask(c))
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	if b.cache != nil {
		if who, err, ok := b.cache.find(body); ok {
			return who, err
		}
	}
	who, err := b.consult(ctx, body, c)
	if b.cache != nil {
		switch {
		case err == nil:
			b.cache.keep(body, who, nil, b.config.CacheAllowed)
		case errors.Is(err, broker.ErrBadCredentials):
			b.cache.keep(body, nil, err, b.config.CacheDenied)
		}
	}
	return who, err
}

func ask(c *broker.Credentials) *question {
	q := &question{ClientID: c.ClientID, Protocol: int(c.Version)}
	if c.HasUsername {
		q.Username = &c.Username
	}
	if c.HasPassword {
		password := string(c.Password)
		q.Password = &password
	}
	if c.Peer == nil {
		return q
	}
	q.Listener, q.CommonName = c.Peer.Listener, c.Peer.CertifiedName()
	if c.Peer.Remote != nil {
		q.PeerHost = c.Peer.Remote.String()
		if host, _, err := net.SplitHostPort(q.PeerHost); err == nil {
			q.PeerHost = host
		}
	}
	return q
}

// consult asks the back end.
func (b *Callback) consult(ctx context.Context, body []byte, c *broker.Credentials) (*broker.Identity, error) {
	select {
	case b.turns <- struct{}{}:
		defer func() { <-b.turns }()
	case <-ctx.Done():
		return nil, fmt.Errorf("http: all %d requests under way are waiting: %w", maxCallbacks, ctx.Err())
	}
	if !b.breaker.enter() {
		return nil, errors.New("http: the back end has failed several times and is left alone for a moment")
	}
	a, err := b.post(ctx, body)
	if err == nil && a.Result != "allow" && a.Result != "deny" && a.Result != "ignore" {
		err = fmt.Errorf("result %.20q: want allow, deny or ignore", a.Result)
	}
	b.breaker.leave(err == nil, ctx.Err() != nil)
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	switch a.Result {
	case "ignore":
		return nil, ErrNotMine
	case "deny":
		return nil, broker.ErrBadCredentials
	}
	return b.identity(a, c)
}

func (b *Callback) post(ctx context.Context, body []byte) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, b.config.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, b.config.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	b.config.Client.sign(request)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	response, err := b.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	switch {
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: want 200", response.Status)
	case err != nil || kind != "application/json":
		return nil, fmt.Errorf("content type %.40q: want application/json", response.Header.Get("Content-Type"))
	}
	data, err := readBounded(response.Body, maxAnswerBytes)
	if err != nil {
		return nil, err
	}
	return parseAnswer(data)
}

// parseAnswer refuses keys that it does not know: one that was meant to narrow
// what a client may do must not be passed over.
func parseAnswer(data []byte) (*answer, error) {
	a := &answer{}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(a); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if d.More() {
		return nil, errors.New("read the answer: more than one value")
	}
	return a, nil
}

// identity is what an answer that allows says.
func (b *Callback) identity(a *answer, c *broker.Credentials) (who *broker.Identity, err error) {
	who = &broker.Identity{By: "http", Username: c.Username, ClientID: a.ClientID, Groups: a.Groups}
	if a.Username != nil {
		who.Username = *a.Username
	}
	if err := validNames(who); err != nil || len(a.Groups) > maxGroups {
		return nil, errors.Join(errors.New("http: the answer has names that cannot be"), err)
	}
	if a.ExpireAt != nil {
		if who.Expires = time.Unix(*a.ExpireAt, 0); !who.Expires.After(b.config.Now()) {
			return nil, fmt.Errorf("%w: expired", broker.ErrNotAuthorized)
		}
	}
	if a.ACL != nil {
		id := who.ClientID
		if id == "" {
			id = c.ClientID
		}
		var acl any
		if err = json.Unmarshal(a.ACL, &acl); err == nil {
			who.Grants, err = readGrants(acl, id, who.Username)
		}
		if err != nil {
			return nil, fmt.Errorf("http: acl of the answer: %w", err)
		}
	}
	return who, nil
}
