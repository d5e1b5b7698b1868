package session

// ring is a queue in a circular buffer that grows by doubling. The zero ring is
// empty and holds no memory.
type ring[T any] struct {
	buf  []T // its length is zero or a power of two
	head int
	n    int
}

func (r *ring[T]) len() int { return r.n }

// at returns the i-th element, 0 ≤ i < len, valid until the next push or pop.
func (r *ring[T]) at(i int) *T { return &r.buf[(r.head+i)&(len(r.buf)-1)] }

// push adds v at the end and returns its place.
func (r *ring[T]) push(v T) *T {
	if r.n == len(r.buf) {
		r.resize(max(2*r.n, minRing))
	}
	r.n++
	p := r.at(r.n - 1)
	*p = v
	return p
}

// pop removes the first element of a ring that is not empty.
func (r *ring[T]) pop() T {
	var none T
	p := r.at(0)
	v := *p
	*p = none
	r.head = (r.head + 1) & (len(r.buf) - 1)
	r.n--
	if r.n == 0 && len(r.buf) > keptRing {
		*r = ring[T]{}
	}
	return v
}

// truncate drops all but the first n elements.
func (r *ring[T]) truncate(n int) {
	var none T
	for i := n; i < r.n; i++ {
		*r.at(i) = none
	}
	r.n = n
}

func (r *ring[T]) resize(size int) {
	buf := make([]T, size)
	for i := range r.n {
		buf[i] = *r.at(i)
	}
	r.buf, r.head = buf, 0
}
