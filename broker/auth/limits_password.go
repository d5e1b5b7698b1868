package auth

// Limits of password files. What is in a file must not be able to stop the node.
const (
	// maxPasswordBytes: longer ones are no passwords, and each byte is hashed.
	maxPasswordBytes = 4096
	// maxIterations of PBKDF2 take some seconds.
	maxIterations = 10_000_000
	// maxArgonKiB (256 MiB), maxArgonPasses and maxArgonThreads are far above what
	// anybody recommends.
	maxArgonKiB     = 256 << 10
	maxArgonPasses  = 16
	maxArgonThreads = 16
	// maxBcryptCost takes some five seconds.
	maxBcryptCost = 16
	// minSumBytes: less could be guessed. maxSumBytes is of the largest digest.
	minSumBytes = 16
	maxSumBytes = 64
	// maxKnownPasswords that were right are remembered (≈ 40 bytes each).
	maxKnownPasswords = 1 << 20

	// What shoal user makes: OWASP's parameters of 2023, 20 to 200 ms.
	argonKiB         = 19 << 10
	argonPasses      = 2
	pbkdf2Iterations = 210_000
	bcryptCost       = 10
)
