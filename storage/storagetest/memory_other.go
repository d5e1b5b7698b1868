//go:build !linux

package storagetest

const shared = ""

func hasRoom() bool { return false }
