package main

import (
	"errors"
	"fmt"

	"github.com/eclipse/paho.golang/paho"
	"github.com/xdg-go/scram"
)

const scramMethod = "SCRAM-SHA-256"

// scramLogin is the client's side of SCRAM-SHA-256 (MQTT 5 §4.12, RFC 7677): the
// password stays here, and the server has to know it too. It is a paho.Auther.
type scramLogin struct {
	conversation *scram.ClientConversation
	err          error // what was wrong with a challenge
}

// newSCRAM puts the first message into a CONNECT, which is sent without password.
func newSCRAM(user, password string, p *paho.Connect) (*scramLogin, error) {
	client, err := scram.SHA256.NewClient(user, password, "")
	if err != nil {
		return nil, fmt.Errorf("-u or -P: %w", err)
	}
	const leastIterations = 4096 // RFC 7677 §4: a false server would ask for fewer
	l := &scramLogin{conversation: client.WithMinIterations(leastIterations).NewConversation()}
	first, err := l.conversation.Step("")
	if err != nil {
		return nil, fmt.Errorf("begin %s: %w", scramMethod, err)
	}
	p.Password, p.PasswordFlag = nil, false
	p.Properties.AuthMethod, p.Properties.AuthData = scramMethod, []byte(first)
	return l, nil
}

// Authenticate is part of paho.Auther. A challenge that is not in order gets an
// answer that no server takes.
func (l *scramLogin) Authenticate(a *paho.Auth) *paho.Auth {
	var challenge string
	if a.Properties != nil {
		challenge = string(a.Properties.AuthData)
	}
	answer, err := l.conversation.Step(challenge)
	if err != nil {
		l.err, answer = err, "no"
	}
	return &paho.Auth{ReasonCode: 0x18, Properties: &paho.AuthProperties{AuthMethod: scramMethod, AuthData: []byte(answer)}}
}

// Authenticated is part of paho.Auther.
func (l *scramLogin) Authenticated() {}

// check is called with CONNACK: the server has to prove that it knows the
// password.
func (l *scramLogin) check(ack *paho.Connack) error {
	if l.err != nil {
		return fmt.Errorf("%s: %w", scramMethod, l.err)
	}
	if ack.Properties == nil {
		return errors.New("the server has not proved that it knows the password")
	}
	if _, err := l.conversation.Step(string(ack.Properties.AuthData)); err != nil || !l.conversation.Valid() {
		return errors.New("the server has not proved that it knows the password")
	}
	return nil
}
