package raftnet

import (
	"crypto/tls"
	"crypto/x509"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// ServerOptions returns the options of the gRPC server that a Mux and the
// callers' own services are registered with: Codec, windows, message sizes,
// keep-alive. With a tls.Config, TLS 1.3 and a client certificate signed by
// ClientCAs (RootCAs if that is nil) are required.
func ServerOptions(cfg *tls.Config) []grpc.ServerOption {
	opts := []grpc.ServerOption{
		grpc.ForceServerCodecV2(Codec),
		grpc.InitialWindowSize(streamWindowBytes),
		grpc.InitialConnWindowSize(connWindowBytes),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxSendMsgSize(maxMessageBytes),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: serverPingEvery, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingEvery / 2, PermitWithoutStream: true}),
	}
	if cfg != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(serverTLS(cfg))))
	}
	return opts
}

func serverTLS(cfg *tls.Config) *tls.Config {
	cfg = cfg.Clone()
	cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS13)
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	if cfg.ClientCAs == nil {
		cfg.ClientCAs = cfg.RootCAs
	}
	if cfg.ClientCAs == nil {
		// Never fall back to the system's authorities: refuse everyone.
		cfg.ClientCAs = x509.NewCertPool()
	}
	return cfg
}
