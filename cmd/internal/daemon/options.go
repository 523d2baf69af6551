package daemon

import (
	"errors"
	"log/slog"

	"github.com/aethertunnel/aethertunnel/control"
	"github.com/aethertunnel/aethertunnel/control/api"
	"github.com/aethertunnel/aethertunnel/control/config"
)

// Options says what to run.
type Options struct {
	Config  config.Config
	Invite  string // an invite line as typed, or empty
	Version string
	Log     *slog.Logger
	// Observe gets every event, for status lines. It must not block.
	Observe func(control.Event)
	// Up is called once, when a gateway listens or a member has its first session.
	Up func(Up)
	// Ready is called once, when a gateway listens or packets pass through a member's tunnel.
	Ready func()
}

// Up describes what has been set up.
type Up struct {
	Status  api.Status
	Created bool        // this start made a new network
	Joined  bool        // this start redeemed an invite
	Invite  *api.Invite // the first invite of a network that was made by this start
}

func (o Options) up(u Up) {
	if o.Up != nil {
		o.Up(u)
	}
}

func (o Options) ready() {
	if o.Ready != nil {
		o.Ready()
	}
}

// ErrAlreadyRunning means that another daemon uses the state directory.
var ErrAlreadyRunning = errors.New("aetherd is running already for this state directory")
