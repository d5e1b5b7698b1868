package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// TestBrowser: a page in Chromium with MQTT.js shows what is published elsewhere,
// its own messages arrive, and when its node is killed it comes back on another
// and gets what was queued.
func TestBrowser(t *testing.T) {
	bundle := "node/node_modules/mqtt/dist/mqtt.min.js"
	if _, err := os.Stat(bundle); err != nil {
		unavailable(t, "no mqtt.js: cd cmd/shoal/e2e/node && npm ci")
	}
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		unavailable(t, "no chromium: apt-get install chromium")
	}
	c, d := startDoors(t)
	mux := http.NewServeMux()
	mux.HandleFunc("/mqtt.min.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, bundle) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "testdata/page.html") })
	pages := httptest.NewServer(mux)
	defer pages.Close()
	p := openPage(t, chromium, pages.URL+"/#"+strings.Join(d.addrs["ws"][:2], ","))
	p.shows("#state", "subscribed")

	other := mqtttest.DialTest(t, c.nodes[2].mqtt, packet.V5)
	other.AutoAck = true
	other.Connect(mqtttest.ID("beside the browser"))
	publish := func(id uint16, text string) {
		t.Helper()
		must(t, other.Send(&packet.Publish{Topic: []byte("browser/in/a"), Payload: []byte(text), QoS: 1, PacketID: id}))
		if ack, ok := other.Next().(*packet.Ack); !ok || ack.Code.Failed() {
			t.Fatalf("PUBLISH of %q got %s", text, mqtttest.Describe(ack))
		}
	}
	publish(1, "live")
	p.shows("#messages", "browser/in/a: live")

	other.SubscribeAll(packet.Subscription{Filter: "browser/out", QoS: 1})
	if m, ok := other.Next().(*packet.Publish); !ok || string(m.Payload) != "hello from the page" {
		t.Fatalf("the page's message is %s", mqtttest.Describe(m))
	}

	c.nodes[0].kill() // the first of the page's list
	publish(2, "queued or live")
	p.shows("#state", "back")
	p.shows("#messages", "queued or live")
	if path := os.Getenv("SHOAL_SCREENSHOT"); path != "" {
		p.screenshot(path)
	}
}

// page is a page of a browser, spoken to by Chromium's DevTools protocol.
type page struct {
	t    *testing.T
	ws   *websocket.Conn
	last int
}

// openPage opens a page in a browser of its own, which ends with the test.
func openPage(t *testing.T, chromium, url string) *page {
	t.Helper()
	profile := t.TempDir()
	cmd := exec.Command(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--disable-background-networking", "--disable-component-update", "--no-first-run",
		"--remote-debugging-port=0", "--user-data-dir="+profile, url)
	cmd.SysProcAttr = endWithParent()
	log, err := os.Create(filepath.Join(profile, "log"))
	must(t, err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })

	var at string
	eventually(t, "Chromium's page", func() error {
		b, err := os.ReadFile(filepath.Join(profile, "DevToolsActivePort"))
		if err != nil {
			said, _ := os.ReadFile(log.Name())
			return fmt.Errorf("%w; it says: %s", err, said)
		}
		port, _, _ := strings.Cut(string(b), "\n")
		r, err := httpClient.Get("http://127.0.0.1:" + port + "/json/list")
		if err != nil {
			return err
		}
		defer r.Body.Close()
		var targets []struct {
			Type, URL string
			WebSocket string `json:"webSocketDebuggerUrl"`
		}
		if err := json.NewDecoder(r.Body).Decode(&targets); err != nil {
			return err
		}
		for _, x := range targets {
			if x.Type == "page" && x.URL == url {
				at = x.WebSocket
				return nil
			}
		}
		return fmt.Errorf("%v has no %s", targets, url)
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, at, nil)
	must(t, err)
	t.Cleanup(func() { ws.CloseNow() })
	ws.SetReadLimit(64 << 20) // screenshots
	return &page{t: t, ws: ws}
}

// do sends a command and returns its result. No events are asked for.
func (p *page) do(method string, params map[string]any, result any) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p.last++
	must(p.t, wsjson.Write(ctx, p.ws, map[string]any{"id": p.last, "method": method, "params": params}))
	answer := struct {
		Result any
		Error  any
	}{Result: result}
	must(p.t, wsjson.Read(ctx, p.ws, &answer))
	if answer.Error != nil {
		p.t.Fatalf("%s: %v", method, answer.Error)
	}
}

// shows waits until the text of an element has this.
func (p *page) shows(selector, want string) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("%q in %s", want, selector), func() error {
		var r struct{ Result struct{ Value string } }
		p.do("Runtime.evaluate", map[string]any{
			"expression": fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector)}, &r)
		if !strings.Contains(r.Result.Value, want) {
			return fmt.Errorf("it shows %q", r.Result.Value)
		}
		return nil
	})
}

// screenshot writes a PNG.
func (p *page) screenshot(path string) {
	var r struct{ Data []byte }
	p.do("Page.captureScreenshot", nil, &r)
	must(p.t, os.WriteFile(path, r.Data, 0o600))
}
