// Package auth finds out who clients are: a chain of broker.Authenticators, each
// of which knows one kind of proof.
//
// Each part of the chain says yes (an Identity), no (broker.ErrBadCredentials,
// broker.ErrNotAuthorized), or ErrNotMine, and then the next is asked. Any other
// error means that it could not find out: the client is refused, nobody else is
// asked, so a back end that fails never lets anybody in, and never passes a
// decision of its own to a weaker one.
//
// Secrets are compared in constant time, are not logged, and are not kept longer
// than the CONNECT that brought them; what is remembered of them is a digest with
// a key of this process.
package auth

import "errors"

// ErrNotMine: a part of the chain knows nothing of this client.
var ErrNotMine = errors.New("nothing is known of this client")
