package cluster

import (
	"reflect"
	"testing"
)

// TestShardOverview: of two that call themselves leaders the later one is; a
// replica on another disk than the placement's is unknown.
func TestShardOverview(t *testing.T) {
	group := func(state string, term, applied uint64, sessions int) []GroupStatus {
		return []GroupStatus{{Group: "shard-1", State: state, Term: term, Applied: applied, Sessions: sessions}}
	}
	said := map[string]Status{
		"a": {Disk: "1", Groups: group("Leader", 4, 90, 1)},
		"b": {Disk: "2", Groups: group("Leader", 5, 100, 2)},
		"c": {Disk: "wiped", Groups: group("Follower", 5, 10, 0)},
		"d": {Disk: "4", Groups: group("Follower", 5, 60, 0)},
	}
	p := PlacementStatus{Group: "shard-1", Replicas: []string{"a/1", "b/2", "c/3"}, Joining: "d/4", Leaving: "c/3"}
	want := Shard{Shard: "shard-1", Leader: "b", Sessions: 2, Replicas: []Replica{
		{Node: "a", Disk: "1", State: "leader", Behind: 10},
		{Node: "b", Disk: "2", State: "leader"},
		{Node: "c", Disk: "3", State: "unknown", Change: "leaving"},
		{Node: "d", Disk: "4", State: "follower", Change: "joining", Behind: 40},
	}}
	for range 20 { // whatever the order of a map is
		if got := shardOverview(p, said); !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	}
}
