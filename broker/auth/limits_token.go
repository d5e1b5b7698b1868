package auth

import "time"

// Limits of tokens and callbacks.
const (
	// maxTokenBytes: tokens with large claims have some KB.
	maxTokenBytes = 16 << 10
	// maxLeeway: clocks that are further apart want mending.
	maxLeeway = 5 * time.Minute
	// maxNameBytes bounds user names, groups and claims that are kept, as the front
	// end bounds Client Identifiers.
	maxNameBytes = 1024
	// maxGroups and maxClaims bound what is kept for each client.
	maxGroups = 256
	maxClaims = 64
	// maxGrants bounds the rules that come with a proof: each publish may look at
	// all of them.
	maxGrants = 256
	// minSecretBytes: RFC 7518 §3.2 wants the size of the digest.
	minSecretBytes = 32
	// minRSABits: RFC 7518 §3.3.
	minRSABits = 2048
	// maxKeys bounds what a token without a key's name is tried with.
	maxKeys = 64
	// maxKeysBytes bounds files and answers with keys.
	maxKeysBytes = 1 << 20
	// fetchTimeout is how long keys may take to come; a client waits for them only
	// if there are none.
	fetchTimeout = 5 * time.Second
	// refetchEvery bounds what clients with made-up key names, or an issuer that is
	// down, cause.
	refetchEvery = 10 * time.Second

	// maxCallbacks bounds the requests under way: a back end that takes 10 ms still
	// answers 6,400 clients a second.
	maxCallbacks = 64
	// maxAnswerBytes is far more than any list of rights.
	maxAnswerBytes = 64 << 10
	// maxCachedAnswers (≈ 300 bytes each).
	maxCachedAnswers = 100_000
	// breakAfter failures in a row, breakFor is the pause: long enough to let a
	// back end start, short enough for clients to come again.
	breakAfter = 5
	breakFor   = 2 * time.Second
)
