package shard

import (
	"fmt"
	"testing"
)

// BenchmarkChoose is the choice of a member, of many that are connected.
func BenchmarkChoose(b *testing.B) {
	for _, members := range []int{4, 64, 1000} {
		b.Run(fmt.Sprint(members), func(b *testing.B) {
			f := newFixture(b, New(testConfig()))
			for i := range members {
				client := fmt.Sprint("c", i)
				conn := f.open(client)
				f.subscribe(client, conn, "$share/g/t", 1)
			}
			sh := f.m.shares["$share/g/t"]
			if sh == nil || len(sh.attached) != members {
				b.Fatal("not all are members")
			}
			for b.Loop() {
				if list, _ := f.m.choose(sh, 0, 1, 100); list == nil {
					b.Fatal("nobody")
				}
			}
		})
	}
}
