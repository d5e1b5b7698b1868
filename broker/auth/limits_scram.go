package auth

// Limits of SCRAM.
const (
	// maxSCRAMBytes of a message: two names and a nonce.
	maxSCRAMBytes = 4096
	// minSCRAMIterations is what RFC 7677 §4 demands. It is the client that computes
	// them, on each login: scramIterations, which shoal user makes, take a
	// microcontroller a second or two.
	minSCRAMIterations = 4096
	scramIterations    = 15_000
	// minSCRAMSalt: less, and users begin to share salts.
	minSCRAMSalt = 8
)
