package storage

import (
	"encoding/binary"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crcBytes is what each row begins with: the CRC32C of the bucket it is in, its
// key and all that follows.
const crcBytes = 4

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// rowCRC is the CRC of a row whose bucket has the checksum base. Bucket and key
// are part of it, so a row that turns up elsewhere is found.
func rowCRC(base uint32, key, payload []byte) uint32 {
	return crc32.Update(crc32.Update(base, castagnoli, key), castagnoli, payload)
}

// sealRow puts the CRC into row, whose first crcBytes are free, and returns it.
func sealRow(base uint32, key, row []byte) uint32 {
	crc := rowCRC(base, key, row[crcBytes:])
	binary.LittleEndian.PutUint32(row, crc)
	return crc
}

// storedCRC is the CRC a row carries, 0 if it is too short for one.
func storedCRC(row []byte) uint32 {
	if len(row) < crcBytes {
		return 0
	}
	return binary.LittleEndian.Uint32(row)
}

// openRow returns the payload of a row, aliasing it, if its CRC is right.
func openRow(base uint32, key, row []byte) (payload []byte, ok bool) {
	if len(row) < crcBytes || storedCRC(row) != rowCRC(base, key, row[crcBytes:]) {
		return nil, false
	}
	return row[crcBytes:], true
}
