package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/aethertunnel/aethertunnel/control"
	"github.com/aethertunnel/aethertunnel/control/api"
	"github.com/aethertunnel/aethertunnel/control/config"
	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/token"
	"github.com/aethertunnel/aethertunnel/dataplane"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/tun"
)

// defaultMTU is what a lane carries over a path of 1,500 bytes: IPv6 takes 80 bytes of it. Where less passes the lane
// splits packets or tells their senders.
const defaultMTU = 1420

// node is a running daemon.
type node struct {
	opts    Options
	state   *state
	plan    plan
	host    *host
	nic     tun.Device
	engine  *dataplane.Engine
	started time.Time
	drops   *udpDrops
	ids     *lane.IDGenerator // of all connection IDs
	lanes   *control.Lanes
	sockets []*socket
	stop    context.CancelCauseFunc
}

// Run is `aetherd up` in the foreground: it runs until ctx ends or `aetherd down` is called, and leaves the host as it
// found it.
func Run(ctx context.Context, o Options) (err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	dir := o.Config.Node.State
	invite, err := precheck(dir, o.Invite)
	if err != nil {
		return err
	}
	st, err := openState(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	n := &node{opts: o, state: st, started: now(), stop: stop, drops: newUDPDrops(), engine: dataplane.New()}
	if n.ids, err = lane.NewIDGenerator(rand.Reader); err != nil {
		return err
	}
	if n.plan, err = st.decide(invite); err != nil {
		return err
	}
	if err := config.AsError(o.Config.CheckRole(n.plan.role)); err != nil {
		return err
	}
	if n.host, err = openHost(dir, st.store, o.Log); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.host.close()) }()
	if err := setNice(o.Config.Node.Nice); err != nil {
		o.Log.Info("priority left as it is", "error", err)
	}
	if n.plan.role == config.RoleMember {
		return n.runMember(ctx)
	}
	return n.runGateway(ctx)
}

// Precheck finds what keeps Run from starting, as far as that can be told without making or changing anything: an invite
// that is none, a process that may not change the network, a state directory that strangers can write to.
func Precheck(state, invite string) error {
	_, err := precheck(state, invite)
	return err
}

func precheck(state, text string) (*token.Invite, error) {
	invite, err := parseInvite(text)
	if err != nil {
		return nil, err
	}
	if err := checkPrivilege(); err != nil {
		return nil, err
	}
	return invite, checkStateDir(state)
}

// openNIC makes the virtual NIC and the dataplane on it.
func (n *node) openNIC() error {
	mtu := n.opts.Config.Node.MTU
	if mtu == 0 {
		mtu = defaultMTU
	}
	nic, err := tun.Config{Name: deviceName(n.opts.Config.Node.Tun), MTU: mtu}.Create()
	if err != nil {
		return err
	}
	n.nic = nic
	n.host.device, n.host.mtu = nic.Name(), mtu
	return nil
}

// closeNIC removes the NIC when the daemon ends before, or after, the parts that use it.
func (n *node) closeNIC() {
	if err := n.nic.Close(); err != nil && !errors.Is(err, tun.ErrClosed) {
		n.opts.Log.Debug("close device", "error", err)
	}
}

// openLanes makes the part that negotiates lanes.
func (n *node) openLanes() {
	n.lanes = control.NewLanes(control.LanesConfig{
		Dataplane: n.engine, Local: n.state.key.ID(), Suites: aead.Preferred(aead.Policy{}), IDs: n.ids,
		Nanos:  bootNanos(),
		Notice: func(text string, err error) { n.opts.Log.Warn("lane", "what", text, "error", err) },
	})
}

// deviceName is the name asked for, or one that lets the system number the devices.
func deviceName(asked string) string {
	switch {
	case asked != "":
		return asked
	case runtime.GOOS == "darwin":
		return "utun"
	case runtime.GOOS == "windows":
		return "AetherTunnel"
	}
	return "aether%d"
}

// serve runs the parts that gateways and members share, and the given ones, until ctx ends or one fails.
func (n *node) serve(ctx context.Context, d api.Daemon, parts ...func(context.Context) error) error {
	socket := api.SocketPath(n.state.dir)
	server, err := api.Listen(socket, d, n.opts.Log)
	if err != nil {
		return err
	}
	outer := ctx
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return guard("lanes", func() error { return n.lanes.Run(ctx) }) })
	group.Go(func() error { return guard("API", func() error { return server.Run(ctx) }) })
	group.Go(func() error { return guard("dataplane", func() error { return n.engine.Run(ctx, n.nic) }) })
	var control sync.WaitGroup
	for _, part := range parts {
		control.Add(1)
		group.Go(func() error {
			defer control.Done()
			return guard("control", func() error { return part(ctx) })
		})
	}
	group.Go(func() error {
		<-ctx.Done()
		control.Wait()       // a part may be in the middle of a change to the NIC
		return n.nic.Close() // ends the dataplane's blocking read
	})
	err = group.Wait()
	if err == nil || errors.Is(err, context.Canceled) {
		return n.failure(outer)
	}
	return err
}

// errDown is the cause of an end that was asked for.
var errDown = errors.New("asked to end")

// fail ends the daemon because of what happened to a part that nobody waits for.
func (n *node) fail(err error) { n.stop(err) }

// failure is what fail was told, if that is why the daemon ends.
func (n *node) failure(ctx context.Context) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, errDown) || errors.Is(cause, context.Canceled) {
		return nil
	}
	return cause
}

// guard turns a panic at the root of a goroutine into the end of the daemon, in order.
func guard(part string, run func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: panic: %v\n%s", part, p, debug.Stack())
		}
	}()
	return run()
}

func (n *node) observe(e control.Event) {
	if n.opts.Observe != nil {
		n.opts.Observe(e)
	}
}

// name is the node's name in the network.
func (n *node) name() string {
	if name := n.opts.Config.Node.Name; name != "" {
		return name
	}
	host, err := os.Hostname()
	if err != nil {
		return config.NodeName("")
	}
	return config.NodeName(host)
}
