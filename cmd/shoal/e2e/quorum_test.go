package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

// refusedWithin is what fails the test: the promise for CONNECT while there is no
// quorum is 2 s, without it nothing would answer before 15 s, and between these
// the machine may be slow.
const refusedWithin = 10 * time.Second

// TestQuorumGone: with two of three nodes dead the third acknowledges nothing,
// refuses CONNECT soon, says why it is not ready, and goes on by itself when
// the others are back.
func TestQuorumGone(t *testing.T) {
	c := startCluster(t, 3)
	r := chaosConfig(t, 0, 0)
	l := startLoad(t, c, loadConfig{seed: r.seed, window: 30, pace: 5 * time.Millisecond})
	awaitAcked(l, 500)
	at := rand.New(rand.NewPCG(r.seed, 4)).Perm(len(c.nodes))
	survivor := c.nodes[at[0]]
	pid := survivor.pid()
	for _, i := range at[1:] {
		c.nodes[i].kill()
	}
	// At once: nobody has noticed yet.
	refusals(t, survivor, packet.V5)
	// Answers that were on their way have arrived long since.
	before := l.ackedNow()
	eventually(t, "unready", func() error { return unready(survivor) })
	refusals(t, survivor, packet.V5)
	refusals(t, survivor, packet.V311)
	if err := unready(survivor); err != nil {
		t.Error(err)
	}
	if now := l.ackedNow(); now != before {
		t.Errorf("%d messages acknowledged without a quorum", now-before)
	}

	c.start()
	c.awaitReady()
	awaitAcked(l, before+500)
	l.finish()
	if survivor.pid() != pid {
		t.Error("the survivor was restarted")
	}
}

// awaitAcked waits until the broker owns so many messages.
func awaitAcked(l *load, many int) {
	l.t.Helper()
	eventually(l.t, "acknowledgements", func() error {
		if l.ackedNow() < many {
			return errors.New("too few")
		}
		return nil
	})
}

// unready is nil if the node says that and why it is not ready.
func unready(n *node) error {
	code, body, err := n.ask("/readyz")
	switch {
	case err != nil:
		return err
	case code != http.StatusServiceUnavailable:
		return errors.New("readyz does not answer 503")
	case strings.TrimSpace(body) == "":
		return errors.New("readyz gives no reason")
	}
	n.t.Logf("readyz: %s", strings.TrimSpace(body))
	return nil
}

// refusals connects three times at once and judges how soon the answers came.
func refusals(t testing.TB, n *node, v packet.Version) {
	t.Helper()
	answers := make(chan time.Duration)
	for range 3 {
		go func() { answers <- refusal(t, n, v) }()
	}
	took := []time.Duration{<-answers, <-answers, <-answers}
	slices.Sort(took)
	t.Logf("MQTT %s: CONNECT refused after %v", v, took)
	if took[1] > refusedWithin {
		t.Errorf("MQTT %s: CONNECT refused after %v, want %v", v, took, refusedWithin)
	}
}

// refusal connects, which the node must refuse, and returns how long it took.
func refusal(t testing.TB, n *node, v packet.Version) time.Duration {
	t.Helper()
	w, err := dialWire(n.mqtt, v)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer w.Close()
	begin := time.Now()
	w.append(&packet.Connect{ClientID: fmt.Sprintf("late-%p", w), CleanStart: true, RequestProblemInfo: true})
	w.flush() // if it fails, so does next
	p, err := w.next(begin.Add(patience))
	took := time.Since(begin)
	// MQTT 3 has one code for it, 0x03, which is read as the same.
	if ack, ok := p.(*packet.Connack); !ok || ack.Code != packet.CodeServerUnavailable {
		t.Errorf("MQTT %s: CONNECT got %+v, %v; want CONNACK 0x88", v, p, err)
	}
	return took
}
