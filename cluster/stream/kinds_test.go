package stream

import (
	"errors"
	"strings"
	"testing"

	shoalpb "github.com/shoalmq/shoal/proto"
)

type (
	// pickKind is of a type whose two fields, target and pick, are messages.
	pickKind = Kind[shoalpb.TargetPick, int]
	// answerKind is of a type whose fields are none.
	answerKind = Kind[shoalpb.SubscribeAnswer, int]
)

func takes(*shoalpb.TargetPick) error { return nil }

// TestKinds: exactly one field, and one that has a check.
func TestKinds(t *testing.T) {
	kinds := NewKinds(pickKind{Name: "pick", Check: takes, Apply: 7}, pickKind{Name: "target"})
	target, pick := &shoalpb.Target{}, &shoalpb.Pick{}
	for _, c := range []struct {
		m    *shoalpb.TargetPick
		want error
	}{
		{&shoalpb.TargetPick{}, errNoKind},
		{&shoalpb.TargetPick{Target: target}, ErrNotHere},
		{&shoalpb.TargetPick{Target: target, Pick: pick}, errTwoKinds},
		{&shoalpb.TargetPick{Pick: pick}, nil},
	} {
		if _, err := kinds.Of(c.m); !errors.Is(err, c.want) {
			t.Errorf("%v: %v, want %v", c.m, err, c.want)
		}
	}
	m := &shoalpb.TargetPick{Pick: pick}
	if k, err := kinds.Of(m); err != nil || k.Name != "pick" || k.Apply != 7 || kinds.Apply(m) != 7 {
		t.Errorf("%+v, %v", k, err)
	}
}

// TestTableMustBeWhole: a table that lacks a field, or has what is none, is not
// made.
func TestTableMustBeWhole(t *testing.T) {
	for want, make := range map[string]func(){
		"without a row":    func() { NewKinds(pickKind{Name: "pick"}) },
		"twice":            func() { NewKinds(pickKind{Name: "pick"}, pickKind{Name: "target"}, pickKind{Name: "pick"}) },
		"no field":         func() { NewKinds(pickKind{Name: "pick"}, pickKind{Name: "target"}, pickKind{Name: "other"}) },
		"is not a message": func() { NewKinds(answerKind{Name: "route"}, answerKind{Name: "existed"}) },
	} {
		func() {
			defer func() {
				if text, _ := recover().(string); !strings.Contains(text, want) {
					t.Errorf("%q, want %q", text, want)
				}
			}()
			make()
		}()
	}
}
