package auth

import (
	"context"
	"errors"

	"github.com/shoalmq/shoal/broker"
)

// Chain asks its parts one after the other; see the package's comment. An empty
// one lets nobody in.
type Chain []broker.Authenticator

// Authenticate is part of broker.Authenticator.
func (c Chain) Authenticate(ctx context.Context, who *broker.Credentials) (*broker.Identity, error) {
	for _, part := range c {
		identity, err := part.Authenticate(ctx, who)
		if errors.Is(err, ErrNotMine) {
			continue
		}
		if err == nil && identity == nil {
			return nil, errors.New("a part of the chain said neither yes nor no")
		}
		return identity, err
	}
	if who.HasUsername || who.HasPassword {
		return nil, broker.ErrBadCredentials
	}
	return nil, broker.ErrNotAuthorized
}
