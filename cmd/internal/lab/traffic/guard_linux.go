package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// A guard closes a connection as soon as its context is done, so that no read or write on it outlasts
// that.
type guard struct {
	conn   net.Conn
	ctx    context.Context
	cancel context.CancelFunc
	stop   func() bool
	once   sync.Once
	err    error // of closing
}

// newGuard guards a connection until [guard.end], which must be called; limit bounds the time until
// then, 0 does not.
func newGuard(ctx context.Context, conn net.Conn, limit time.Duration) *guard {
	g := &guard{conn: conn}
	if limit > 0 {
		late := fmt.Errorf("not done within %v: %w", limit, os.ErrDeadlineExceeded)
		g.ctx, g.cancel = context.WithTimeoutCause(ctx, limit, late)
	} else {
		g.ctx, g.cancel = context.WithCancel(ctx)
	}
	g.stop = context.AfterFunc(g.ctx, g.close)
	return g
}

func (g *guard) close() { g.once.Do(func() { g.err = g.conn.Close() }) }

// end closes the connection and returns err, or what ended the context in its place.
func (g *guard) end(err error) error {
	if cause := context.Cause(g.ctx); err != nil && cause != nil {
		err = cause
	}
	g.stop()
	g.close()
	g.cancel()
	return errors.Join(err, g.err)
}
