package raftnet

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// Codec is the gRPC codec of all connections of Pool and of servers made with
// ServerOptions. *Raw passes unchanged, messages with MarshalVT and UnmarshalVT
// use those with pooled buffers, other protobuf messages the reflective code.
var Codec encoding.CodecV2 = codec{}

// Raw is a message that is already encoded. Sent Data belongs to gRPC and must
// not change any more; received Data belongs to the receiver.
type Raw struct{ Data []byte }

// frame is a message in pieces, so that entries need not be copied together.
type frame struct{ pieces mem.BufferSlice }

type vtMarshaler interface {
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
}

type vtUnmarshaler interface{ UnmarshalVT([]byte) error }

type codec struct{}

// Name is that of gRPC's own codec: to other programs these are plain protobuf
// services.
func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *Raw:
		return mem.BufferSlice{mem.SliceBuffer(m.Data)}, nil
	case *frame:
		return m.pieces, nil
	case vtMarshaler:
		return marshalVT(m)
	case proto.Message:
		b, err := proto.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("encode %T: %w", v, err)
		}
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return nil, fmt.Errorf("encode %T: not a message", v)
}

func marshalVT(m vtMarshaler) (mem.BufferSlice, error) {
	size := m.SizeVT()
	if mem.IsBelowBufferPoolingThreshold(size) {
		b := make([]byte, size)
		if _, err := m.MarshalToSizedBufferVT(b); err != nil {
			return nil, fmt.Errorf("encode %T: %w", m, err)
		}
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	pool := mem.DefaultBufferPool()
	b := pool.Get(size)
	if _, err := m.MarshalToSizedBufferVT((*b)[:size]); err != nil {
		pool.Put(b)
		return nil, fmt.Errorf("encode %T: %w", m, err)
	}
	return mem.BufferSlice{mem.NewBuffer(b, pool)}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch m := v.(type) {
	case *Raw:
		m.Data = data.Materialize()
		return nil
	case vtUnmarshaler:
		return unmarshalWith(data, v, m.UnmarshalVT)
	case proto.Message:
		return unmarshalWith(data, v, func(b []byte) error { return proto.Unmarshal(b, m) })
	}
	return fmt.Errorf("decode %T: not a message", v)
}

// unmarshalWith lends decode one contiguous buffer; decode copies what it keeps.
func unmarshalWith(data mem.BufferSlice, v any, decode func([]byte) error) error {
	b := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer b.Free()
	if err := decode(b.ReadOnlyData()); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	return nil
}
