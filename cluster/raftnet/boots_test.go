package raftnet

import (
	"log/slog"
	"testing"
)

// TestRolledBackDisksAreRefused: by whoever knows a higher boot, on either side.
func TestRolledBackDisksAreRefused(t *testing.T) {
	told, announced := uint64(0), uint64(5)
	m := &Mux{self: "a/1", log: slog.New(slog.DiscardHandler), refused: map[string]bool{}}
	if err := m.checkBoots(hello{from: "b/1", boot: 1, known: 99}); err != nil {
		t.Errorf("refused without knowing boots: %v", err)
	}
	m.CheckBoots(Boots{
		Own:        func() uint64 { return 5 },
		Told:       func() uint64 { return announced },
		Known:      func(string) uint64 { return 7 },
		RolledBack: func(known uint64) { told = known },
	})
	for _, c := range []struct {
		h       hello
		refused bool
		told    uint64
	}{
		{hello{from: "b/1", boot: 7, known: 5}, false, 0},
		{hello{from: "b/1", boot: 8}, false, 0},
		{hello{from: "b/1"}, false, 0},
		{hello{from: "b/1", boot: 6}, true, 0},
		{hello{from: "b/1", boot: 9, known: 6}, true, 6},
	} {
		told = 0
		if err := m.checkBoots(c.h); (err != nil) != c.refused || told != c.told {
			t.Errorf("%+v: %v, told %d", c.h, err, told)
		}
	}
	// A boot that this process has not told anybody was another process's.
	announced, told = 4, 0
	if err := m.checkBoots(hello{from: "b/1", boot: 9, known: 5}); err == nil || told != 5 {
		t.Errorf("a peer knows the boot before it was announced: %v, told %d", err, told)
	}
	if err := m.checkBoots(hello{from: "b/1", boot: 9, known: 4}); err != nil {
		t.Error(err)
	}
}
