package shard

import (
	"maps"
	"slices"
	"strings"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// recover makes this copy the shard of a new cluster: the majority is lost for
// good. Other shards are recovered from copies of another age, so their streams
// count from where they are (stream.In.Adopt), and the directory may not know all
// routes, so it is told them again. What outboxes hold is sent once more.
func (m *Machine) recover(r *shoalpb.Recover) {
	m.in.Adopt(r.Shards)
	var filters []*filter
	m.filters.All(func(_ string, f *filter) bool {
		filters = append(filters, f)
		return true
	})
	slices.SortFunc(filters, func(a, b *filter) int { return strings.Compare(a.name, b.name) })
	for _, f := range filters {
		m.touch(f)
		m.tell(f)
	}
	for _, name := range slices.Sorted(maps.Keys(m.shares)) {
		m.shares[name].told = seats{} // nothing, as far as the directory knows
		m.tellShare(m.shares[name])
	}
}
