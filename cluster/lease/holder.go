package lease

import "time"

// Holder is a node's side: its own lease, and the visible index as it may use
// it. The zero Holder has no lease. All times are on the node's clock. A process
// that takes a new boot begins with a new Holder.
type Holder struct {
	expiry  time.Duration
	from    time.Duration // renewals that were sent earlier count for nothing
	copies  uint64        // copies of the directory that SetBack has ended
	awake   awake         // as CloseClients sees it
	gone    time.Duration // for how long the node has run without its lease
	term    uint64
	visible uint64
}

// Begin makes h the holder of a process that takes a new boot at now: what
// another boot was granted and told is gone.
func (h *Holder) Begin(now time.Duration) {
	*h = Holder{copies: h.copies, from: now + 1}
}

// SetBack tells that the node's copy of the directory has forgotten entries, and
// that from now on nobody can read the copy that had them. The lease is over, a
// renewal that was sent before is not taken, and what was told has to be told
// again. The node goes on with another copy: see Copy.
func (h *Holder) SetBack(now time.Duration) {
	*h = Holder{
		copies: h.copies + 1, from: now + 1, expiry: min(h.expiry, now), awake: h.awake,
	}
}

// Copy numbers the node's copies of the directory, from 1: it grows whenever
// entries are forgotten, also across boots. Every report and every renewal names
// the copy whose applied index it carries; the index must be read after the
// number.
func (h *Holder) Copy() uint64 { return h.copies + 1 }

// Granted takes the grant of a renewal that was sent at sentAt. A late one is
// worth what is left of it; one out of order changes nothing, nor does one that
// was sent before the copy was set back.
func (h *Holder) Granted(sentAt, now time.Duration) {
	if sentAt >= h.from {
		h.expiry = max(h.expiry, sentAt+Duration)
	}
}

// Expiry returns when the lease ends, 0 if there never was one. See the package
// comment for how a publish uses it.
func (h *Holder) Expiry() time.Duration { return h.expiry }

// Valid reports whether the lease holds.
func (h *Holder) Valid(now time.Duration) bool { return now < h.expiry }

// CloseClients reports whether the node has run for so long without its lease
// that it lets its clients go. Call it at least every Renew: in a longer pause the
// process itself was suspended, and could not be renewed.
func (h *Holder) CloseClients(now time.Duration) bool {
	ran := h.awake.tick(now)
	if h.expiry == 0 || h.Valid(now) {
		h.gone = 0
		return false
	}
	h.gone += min(ran, now-h.expiry)
	return h.gone >= CloseAfter
}

// Applied tells that the node has applied the entry of the directory at index,
// of the given raft term; calls come in order. What leaders of earlier terms
// told, or will tell, of this entry and later ones is not used: they may not know
// all leases any more.
func (h *Holder) Applied(index, term uint64) {
	if term > h.term {
		h.term = term
		h.visible = min(h.visible, index-1)
	}
}

// Told takes the visible index that the directory's leader of a term told, and
// returns Visible.
func (h *Holder) Told(term, visible uint64) uint64 {
	if term >= h.term {
		h.term = term
		h.visible = max(h.visible, visible)
	}
	return h.visible
}

// Visible returns the visible index. A subscription may be acknowledged once this
// and the node's own applied index have reached its route.
func (h *Holder) Visible() uint64 { return h.visible }
