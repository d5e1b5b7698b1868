// Package shoalpb holds the wire and disk formats of Shoal: what nodes send each
// other, what groups commit to their logs, what state files keep. The Go code is
// generated from the .proto files by generate.sh ("make proto"); the VT methods
// are its fast encoders. UnmarshalVTUnsafe aliases its input.
package shoalpb
