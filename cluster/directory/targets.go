package directory

import "math/bits"

// planes is 64 targets and their QoS: bit i of planes[q] is set if target i has
// QoS q or higher. So the union of two is the higher QoS of each target.
type planes [3]uint64

// targetSet is the targets of one filter by numeric id. The zero set is empty.
type targetSet struct {
	first planes // ids 0 to 63: enough for most clusters, without another object
	rest  []planes
}

// set gives id the QoS qos, at most 2, in place of a former one.
func (s *targetSet) set(id int, qos uint8) {
	s.clear(id)
	for len(s.rest) < id/64 {
		s.rest = append(s.rest, planes{})
	}
	p := s.word(id / 64)
	for q := range qos + 1 {
		p[q] |= 1 << (id % 64)
	}
}

// clear removes id.
func (s *targetSet) clear(id int) {
	if id/64 > len(s.rest) {
		return
	}
	p := s.word(id / 64)
	for q := range p {
		p[q] &^= 1 << (id % 64)
	}
}

// qos returns the QoS of id and whether it is in the set.
func (s *targetSet) qos(id int) (uint8, bool) {
	if id/64 > len(s.rest) {
		return 0, false
	}
	return s.word(id / 64).qos(id % 64)
}

func (p *planes) qos(bit int) (uint8, bool) {
	return uint8(p[1]>>bit&1 + p[2]>>bit&1), p[0]>>bit&1 == 1
}

// word returns the i-th 64 targets.
func (s *targetSet) word(i int) *planes {
	if i == 0 {
		return &s.first
	}
	return &s.rest[i-1]
}

func (s *targetSet) empty() bool {
	some := s.first[0]
	for i := range s.rest {
		some |= s.rest[i][0]
	}
	return some == 0
}

// each calls f for each id that is in the set and in mask, ascending.
func (s *targetSet) each(mask []uint64, f func(id int, qos uint8)) {
	for i := 0; i <= len(s.rest) && i < len(mask); i++ {
		s.word(i).each(mask[i], func(bit int, qos uint8) { f(64*i+bit, qos) })
	}
}

func (p *planes) each(mask uint64, f func(bit int, qos uint8)) {
	for left := p[0] & mask; left != 0; left &= left - 1 {
		bit := bits.TrailingZeros64(left)
		qos, _ := p.qos(bit)
		f(bit, qos)
	}
}

// merge adds s to sum, which has a word for every id there is.
func (s *targetSet) merge(sum []planes) {
	for i := range min(len(s.rest)+1, len(sum)) {
		for q, w := range s.word(i) {
			sum[i][q] |= w
		}
	}
}
