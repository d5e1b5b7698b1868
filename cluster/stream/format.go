package stream

import "fmt"

// FirstFormat is the oldest format of log entries that is still read. The newest
// one, LastFormat, is in format_now.go, and in format_next.go for a build with
// the tag shoalnext: that is a later version of Shoal as far as others can tell,
// which lets tests upgrade a cluster.
//
// An entry of format f may be written when every node of the cluster serves
// version f: the directory keeps the lowest. A new kind of command and a new field
// are used only from the format on that knows them.
const FirstFormat = 1

// FormatOrder is the first format that knows the fields of takeovers that ask
// first and of what else was added with them. A field or command of it says so in
// its .proto file.
const FormatOrder = 2

// CheckFormat returns an error if this build does not read entries of a format.
func CheckFormat(format uint32) error {
	switch {
	case format > LastFormat:
		return fmt.Errorf("entry of format %d, which a newer build has written; this one reads up to %d", format, LastFormat)
	case format < FirstFormat:
		return fmt.Errorf("entry of unknown format %d", format)
	}
	return nil
}
