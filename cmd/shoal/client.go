package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

// client is one MQTT connection of pub or sub, the same for all protocol
// versions. Its methods are called from one goroutine.
type client interface {
	// publish returns when the server has acknowledged; at QoS 0, when written.
	publish(ctx context.Context, m message) error
	// subscribe returns when every filter was granted.
	subscribe(ctx context.Context, filters []string, o subscribeOptions) error
	// unsubscribe returns when the server has answered.
	unsubscribe(ctx context.Context, filters []string) error
	// lost gets one error when the connection ends before disconnect.
	lost() <-chan error
	// disconnect ends the connection in the way of the protocol.
	disconnect() error
}

// message is one that is published, or that a subscriber received.
type message struct {
	topic       string
	payload     []byte
	qos         byte
	retain, dup bool
	expiry      uint32 // seconds, to publish with MQTT 5; 0 for none
}

// subscribeOptions hold for all filters; before MQTT 5 only qos does.
type subscribeOptions struct {
	qos            byte
	retainHandling byte
	asPublished    bool
	noLocal        bool
}

// receiver is what a subscriber does with messages. take gets them in order,
// from one goroutine; one that it returns an error for is not acknowledged.
// done, from any goroutine, says that one more of those taken is finished: its
// last acknowledgement (at QoS 2: PUBCOMP) is on its way. Who ended earlier
// would be sent the message again.
type receiver struct {
	take func(message) error
	done func()
}

// unfinished are the Packet Identifiers of QoS 2 messages that were taken and
// wait for PUBREL. There may be PUBRELs for others: of messages that an earlier
// connection took.
type unfinished struct {
	mu  sync.Mutex
	ids map[uint16]bool
}

func (u *unfinished) add(id uint16) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ids == nil {
		u.ids = map[uint16]bool{}
	}
	u.ids[id] = true
}

func (u *unfinished) remove(id uint16) (known bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	known = u.ids[id]
	delete(u.ids, id)
	return known
}

// answerTimeout bounds the wait for each answer: longer than a cluster needs to
// find new leaders after a node died.
const answerTimeout = 30 * time.Second

// clientFlags are the flags that pub and sub have in common, named as
// mosquitto_pub and mosquitto_sub name them.
type clientFlags struct {
	host     string
	port     uint16
	id       string
	user     string
	password string
	scram    bool
	version  string
	alive    uint16
	will     message
	willText string
	delay    uint32
	resume   bool
	expiry   int64
	debug    bool
	qos      uint8
	topics   []string
}

func (f *clientFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.Bool("help", false, "show this help") // takes -h away from cobra
	fs.StringVarP(&f.host, "host", "h", "127.0.0.1", "host to connect to")
	fs.Uint16VarP(&f.port, "port", "p", 1883, "port to connect to")
	fs.StringVarP(&f.id, "id", "i", "", "Client Identifier (default: a random one)")
	fs.StringVarP(&f.user, "username", "u", "", "user name")
	fs.StringVarP(&f.password, "pw", "P", "", "password")
	fs.BoolVar(&f.scram, "scram", false, "prove the password by SCRAM-SHA-256 instead of sending it, MQTT 5 only (wants -u and -P)")
	fs.StringVarP(&f.version, "protocol-version", "V", "5", "5, 311 or 31 (also mqttv5, mqttv311, mqttv31)")
	fs.BoolVarP(&f.resume, "disable-clean-session", "c", false, "resume the session, and keep it after the end (wants -i)")
	fs.Int64VarP(&f.expiry, "session-expiry-interval", "x", -1, "seconds to keep the session after the end, MQTT 5 only (default: 0, with -c for ever)")
	fs.Uint16VarP(&f.alive, "keepalive", "k", 60, "Keep Alive in seconds")
	fs.StringVar(&f.will.topic, "will-topic", "", "topic of the Will, which the server publishes when the connection is lost")
	fs.StringVar(&f.willText, "will-payload", "", "message of the Will")
	fs.Uint8Var(&f.will.qos, "will-qos", 0, "QoS of the Will")
	fs.BoolVar(&f.will.retain, "will-retain", false, "retain the Will")
	fs.Uint32Var(&f.delay, "will-delay", 0, "seconds that the Will waits for the client to come back, MQTT 5 only")
	fs.BoolVarP(&f.debug, "debug", "d", false, "show the protocol's steps on standard error")
	fs.Uint8VarP(&f.qos, "qos", "q", 0, "QoS: 0, 1 or 2")
	fs.StringArrayVarP(&f.topics, "topic", "t", nil, "topic")
}

// protocol is the protocol's version number on the wire.
func (f *clientFlags) protocol() byte {
	switch strings.TrimPrefix(f.version, "mqttv") {
	case "5":
		return 5
	case "311", "3.1.1":
		return 4
	case "31", "3.1":
		return 3
	}
	return 0
}

func (f *clientFlags) check() error {
	switch {
	case len(f.topics) == 0:
		return errors.New("-t is missing: which topic?")
	case f.qos > 2:
		return fmt.Errorf("-q %d: want 0, 1 or 2", f.qos)
	case f.protocol() == 0:
		return fmt.Errorf("-V %q: want 5, 311 or 31", f.version)
	case f.resume && f.id == "":
		return errors.New("-c wants -i: a session is resumed by its Client Identifier")
	case f.expiry < -1 || f.expiry > math.MaxUint32:
		return fmt.Errorf("-x %d: want seconds from 0 to %d", f.expiry, uint32(math.MaxUint32))
	case f.expiry >= 0 && f.protocol() != 5:
		return errors.New("-x is known to MQTT 5 only")
	case f.will.topic == "" && (f.willText != "" || f.will.qos != 0 || f.will.retain || f.delay != 0):
		return errors.New("a Will wants --will-topic")
	case strings.ContainsAny(f.will.topic, "+#"):
		return fmt.Errorf("--will-topic %q: a message cannot be published to a wildcard", f.will.topic)
	case f.will.qos > 2:
		return fmt.Errorf("--will-qos %d: want 0, 1 or 2", f.will.qos)
	case f.delay != 0 && f.protocol() != 5:
		return errors.New("--will-delay is known to MQTT 5 only")
	case f.scram && (f.protocol() != 5 || f.user == "" || f.password == ""):
		return errors.New("--scram wants -u and -P, and MQTT 5")
	case f.password != "" && f.user == "" && f.protocol() != 5:
		return errors.New("-P wants -u: before MQTT 5 there is no password without a user name")
	}
	if f.id == "" {
		f.id = "shoal-" + strings.ToLower(rand.Text()[:12])
	}
	f.will.payload = []byte(f.willText)
	return nil
}

// expirySeconds is the Session Expiry Interval to ask for.
func (f *clientFlags) expirySeconds() uint32 {
	switch {
	case f.expiry >= 0:
		return uint32(f.expiry)
	case f.resume:
		return math.MaxUint32
	}
	return 0
}

// dial connects with the version that was asked for.
func (f *clientFlags) dial(ctx context.Context, r receiver) (client, error) {
	addr := net.JoinHostPort(f.host, strconv.Itoa(int(f.port)))
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	if f.protocol() == 5 {
		return dialV5(ctx, f, conn, r)
	}
	return dialV3(ctx, f, conn, r)
}
