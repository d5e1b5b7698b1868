package cluster

import "testing"

// A copy of the directory that is set back ends the lease that was granted for
// what it knew, and with it every claim: one that was made before must not hold
// by a lease that is granted after, for the match between may be of the older
// copy.
func TestClaimEndsWithLapse(t *testing.T) {
	c := newLeaseClient(nil)
	c.begin(1)
	c.grant(1, bootTime())
	before := c.claim()
	if !c.holds(before) {
		t.Fatal("a lease that was granted now does not hold")
	}
	late := bootTime()
	c.setBack()
	if c.holds(before) || c.valid() {
		t.Fatal("the lease holds after its lapse")
	}
	if c.grant(1, late); c.valid() {
		t.Fatal("a renewal that was asked for before the lapse counts")
	}
	c.grant(1, bootTime())
	if !c.holds(c.claim()) {
		t.Fatal("the lease that was asked for anew does not hold")
	}
	if c.holds(before) {
		t.Fatal("a claim of before the lapse holds by the lease of after it")
	}
}
