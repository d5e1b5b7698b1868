package packet

// The bounds of the wire. What a broker allows within them is configuration.
const (
	// MaxVarint is the largest Variable Byte Integer: four bytes of seven bits
	// (MQTT 5 §1.5.5).
	MaxVarint = 1<<28 - 1

	// MaxPacketBytes is the size of the largest Control Packet: type and flags,
	// four bytes of Remaining Length, and what that can count.
	MaxPacketBytes = 1 + maxVarintBytes + MaxVarint

	// MaxStringBytes bounds a UTF-8 Encoded String and Binary Data, whose length
	// has two bytes (MQTT 5 §1.5.4, §1.5.6).
	MaxStringBytes = 1<<16 - 1

	// maxVarintBytes: a fifth byte is malformed [MQTT-1.5.5-1].
	maxVarintBytes = 4
)
