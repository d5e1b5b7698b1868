package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io/fs"
	"net"
	"net/netip"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/listener"
	"github.com/shoalmq/shoal/broker/watch"
	"github.com/shoalmq/shoal/cmd/shoal/config"
)

// doors are the listeners for clients, in the order of the configuration. Their
// addresses are taken when the process starts, and they open when the node is ready
// for the first time: until then clients, and those who look for a server by
// connecting to it, are refused.
type doors struct{ all []door }

type door struct {
	*listener.Reserved
	config *config.Listener
}

// reserveDoors takes the addresses of all listeners, or of none.
func (d *daemon) reserveDoors() error {
	for i := range d.config.AllListeners {
		c := &d.config.AllListeners[i]
		r, err := listener.Reserve(listenerConfig(c, d.watcher))
		if err != nil {
			d.doors.close()
			return fmt.Errorf("open listener: %w", err)
		}
		d.doors.all = append(d.doors.all, door{r, c})
	}
	return nil
}

// openDoors lets clients in.
func (d *daemon) openDoors() error {
	told := d.doors.announced()
	for _, door := range d.doors.all {
		c := door.config
		open, err := door.Listen()
		if err != nil {
			return fmt.Errorf("open listener: %w", err)
		}
		d.log.Info("listening", "listener", c.Name, "protocol", c.Protocol, "tls", c.TLS != nil, "addr", open.Addr())
		l := &broker.Listener{
			Listener: open, Name: c.Name, AllowAnonymous: c.AllowAnonymous,
			Unannounced: door.Addr() != told,
			Limits: broker.ListenerLimits{
				Quota: quota(&c.Limits.Quota), ConnectRate: c.Limits.ConnectRate, Each: clientLimits(&c.Limits.Client, queueLimits(d.config)),
			},
		}
		d.tasks.Go(func() { d.fail(d.broker.Serve(context.Background(), l)) })
	}
	return nil
}

// announced is the address that other nodes and clients are told: that of the first
// listener without TLS or WebSocket, or else the first that speaks TCP, or nil.
func (d *doors) announced() net.Addr {
	var next net.Addr
	for _, door := range d.all {
		if network, _ := door.config.Endpoint(); network != "tcp" {
			continue
		}
		if door.config.TLS == nil && door.config.Protocol == "mqtt" {
			return door.Addr()
		}
		if next == nil {
			next = door.Addr()
		}
	}
	return next
}

func (d *doors) close() {
	for _, door := range d.all {
		door.Close()
	}
}

func listenerConfig(c *config.Listener, w *watch.Watcher) listener.Config {
	l := listener.Config{Name: c.Name, Mode: fs.FileMode(c.Mode), Watch: w}
	l.Network, l.Addr = c.Endpoint()
	for _, n := range c.ProxyFrom {
		l.ProxyFrom = append(l.ProxyFrom, netip.Prefix(n.Prefix))
	}
	if c.Protocol == "ws" {
		l.WebSocket = &listener.WebSocket{Path: c.Path, Origins: c.Origins}
	}
	if t := c.TLS; t != nil {
		l.TLS = &listener.TLS{CertFile: t.Cert, KeyFile: t.Key, ClientCAFile: t.ClientCA, CRLFile: t.CRL, MinVersion: tls.VersionTLS12}
		if t.MinVersion == "1.3" {
			l.TLS.MinVersion = tls.VersionTLS13
		}
		switch t.ClientCert {
		case "request":
			l.TLS.ClientCert = listener.RequestClientCert
		case "require":
			l.TLS.ClientCert = listener.RequireClientCert
		}
	}
	return l
}
