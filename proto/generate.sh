#!/usr/bin/env bash
# Generates the Go code of every .proto file beside it. Needs protoc; its
# plugins are tools of go.mod.
set -euo pipefail
cd "$(dirname "$0")"
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go build -o "$bin" google.golang.org/protobuf/cmd/protoc-gen-go \
	google.golang.org/grpc/cmd/protoc-gen-go-grpc \
	github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto
protoc --plugin="$bin/protoc-gen-go" --plugin="$bin/protoc-gen-go-grpc" --plugin="$bin/protoc-gen-go-vtproto" \
	-I . --go_out=. --go_opt=paths=source_relative \
	--go-grpc_out=. --go-grpc_opt=paths=source_relative \
	--go-vtproto_out=. --go-vtproto_opt=paths=source_relative,features=marshal+unmarshal+unmarshal_unsafe+size \
	./*.proto
