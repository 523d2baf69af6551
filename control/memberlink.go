package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/sync/errgroup"

	"github.com/aethertunnel/aethertunnel/control/admit"
	"github.com/aethertunnel/aethertunnel/control/masque"
	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

// Liveness of a link. QUIC itself gives up after MaxIdleTimeout, far too late for a person at a screen.
const (
	// watchPeriod is how often a link is looked at.
	watchPeriod = 500 * time.Millisecond
	// quietLimit is how long a link that sends may receive nothing before it is asked.
	quietLimit = 2 * time.Second
	// idleProbe is how long a silent link is left alone.
	idleProbe = 15 * time.Second
	// answerLimit is how long an answer may take, and the pause between further questions.
	answerLimit = 1500 * time.Millisecond
	// manyLost is how many lost packets within quietLimit make a path doubtful, if they are most of what was sent.
	manyLost = 5
	// connectLimit bounds one attempt to get a session.
	connectLimit = 8 * time.Second
)

// dial races the gateway's addresses and asks the winner for a session.
func (m *Member) dial(ctx context.Context, membership store.Membership) (*memberLink, error) {
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	addresses, err := resolve(ctx, m.cfg.Resolver, membership.GatewayAddresses)
	if err != nil {
		return nil, err
	}
	tlsConfig := memberTLS(m.cfg.Key, membership, m.cfg.KeyExchange, m.cfg.Now)
	won, err := race(ctx, addresses, func(ctx context.Context, a netip.AddrPort) (reached, error) {
		conn, size, err := masque.DialPacketSizes(ctx, func(ctx context.Context, size uint16) (*quic.Conn, error) {
			return m.cfg.Transport.Dial(ctx, net.UDPAddrFromAddrPort(a), tlsConfig, masque.QUICConfig(size))
		})
		if err != nil {
			return reached{}, dialError(a, err)
		}
		return reached{conn, size, a}, nil
	}, reached.discard)
	if err != nil {
		return nil, err
	}
	return m.request(ctx, won)
}

// request asks the gateway at the other end of a connection for a session.
func (m *Member) request(ctx context.Context, won reached) (*memberLink, error) {
	session, _, err := masque.Dial(ctx, won.conn, masque.Request{Authority: won.address.String()})
	if err != nil {
		won.discard()
		return nil, err
	}
	l := &memberLink{link: link{
		conn: won.conn, session: session, remote: won.address, since: m.cfg.Now(),
		group: keyExchange(won.conn.ConnectionState().TLS),
	}}
	l.nudges = make(chan struct{}, 1)
	l.ctx, l.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	l.lanes = m.cfg.Lanes.begin(m.cfg.Membership.Gateway, &l.link, m.cfg.Socket, keyschedule.Client)
	return l, nil
}

// reached is a connection to one of the gateway's addresses.
type reached struct {
	conn        *quic.Conn
	packetBytes uint16
	address     netip.AddrPort
}

func (r reached) discard() {
	// Nobody uses the connection: its own error says nothing new.
	_ = r.conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
}

// certificateError returns the cause when the gateway's certificate, or the clock, is what is wrong: retrying does
// not mend it. It is one line for the user, with the first address where that was found.
func certificateError(err error) error {
	for _, final := range []struct {
		is     error
		remedy string
	}{
		{admit.ErrWrongGateway, "another machine answers there: check the address, or ask for a new invite"},
		{admit.ErrWrongNetwork, "another gateway answers there: check the address, or join it with a fresh --state"},
		{admit.ErrExpired, ""},
		{admit.ErrNotYetValid, ""},
		{admit.ErrCertificate, ""}, // these say it themselves
	} {
		if !errors.Is(err, final.is) {
			continue
		}
		if all, ok := errors.AsType[failures](err); ok {
			err = all[slices.IndexFunc(all, func(one error) bool { return errors.Is(one, final.is) })]
		}
		if final.remedy == "" {
			return err
		}
		return fmt.Errorf("%w; %s", err, final.remedy)
	}
	return nil
}

// dialError says where a dial failed. QUIC packs what our own certificate check has found into an alert of its own,
// which tells people nothing.
func dialError(at netip.AddrPort, err error) error {
	if alert, ok := errors.AsType[*quic.TransportError](err); ok && alert.ErrorCode.IsCryptoError() && !alert.Remote {
		for _, cause := range alert.Unwrap() {
			if cause != nil && !errors.Is(cause, net.ErrClosed) {
				err = cause
			}
		}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(*quic.IdleTimeoutError)) {
		return fmt.Errorf("%s: no answer (%w)", at, err)
	}
	return fmt.Errorf("%s: %w", at, err)
}

// serve runs a link until it ends and tells the loop how.
func (m *Member) serve(ctx context.Context, l *memberLink) {
	// In this order: a session that is cancelled first looks lost, and a lost one is outlived by its lane.
	stop := context.AfterFunc(ctx, func() { l.close(quic.ApplicationErrorCode(http3.ErrCodeNoError), "") })
	defer stop()
	late := time.AfterFunc(adoptLimit, func() { m.tell(memberMessage{link: l, late: true}) })
	defer late.Stop()
	group, groupCtx := errgroup.WithContext(l.ctx)
	group.Go(func() error {
		err := l.session.Run(groupCtx, func(e masque.Event) {
			if c, ok := e.(masque.PrivateCapsule); ok && c.Type == masque.CapsuleLane {
				m.laneMessage(l, c.Payload)
				return
			}
			m.tell(memberMessage{link: l, event: e})
		})
		if err == nil {
			err = masque.ErrPeerClosed
		}
		return err
	})
	group.Go(func() error { return recovered(func() error { return m.watch(groupCtx, l) }) })
	err := group.Wait()
	// The connection's own end is the better reason: it carries the gateway's code.
	if cause := context.Cause(l.conn.Context()); cause != nil {
		err = cause
	}
	m.cfg.Lanes.ended(l.lanes, ctx.Err() != nil || orderly(err))
	l.close(masque.CodeRestart, "made anew") // unless it is closed already
	m.tell(memberMessage{ended: true, link: l, err: err})
}

// laneMessage takes what the gateway says about lanes.
func (m *Member) laneMessage(l *memberLink, payload []byte) {
	err := m.cfg.Lanes.message(l.lanes, payload)
	if err == nil {
		return
	}
	m.observe(Event{Kind: EventNotice, Text: "lane message of the gateway refused", Err: err})
	if errors.Is(err, lane.ErrMalformed) {
		l.close(quic.ApplicationErrorCode(http3.ErrCodeMessageError), "malformed lane message")
	}
}

// nudge asks for a sign of life at once: the host's network has changed.
func (l *memberLink) nudge() {
	select {
	case l.nudges <- struct{}{}:
	default:
	}
}

// watch asks the gateway for signs of life when it sends nothing by itself or most of what we send is lost, and tells the
// loop when it does not answer. A question also moves the connection: its packet is the first from a new address.
func (m *Member) watch(ctx context.Context, l *memberLink) error {
	tick := time.NewTicker(watchPeriod)
	defer tick.Stop()
	v := vitals{heardAt: time.Now(), countedAt: time.Now()}
	for {
		nudged := false
		select {
		case <-tick.C:
		case <-l.nudges:
			nudged = true
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		stats := l.conn.ConnectionStats()
		sealed, opened := m.cfg.Lanes.progress(l.lanes)
		stats.PacketsSent += sealed
		stats.PacketsReceived += opened
		if doubtful := v.doubtful(time.Now(), stats); !doubtful && !nudged {
			continue
		}
		if err := m.ask(ctx, l); err != nil {
			return err
		}
		v.heardAt = time.Now()
	}
}

// vitals judges a connection by its counters.
type vitals struct {
	heardAt                  time.Time // when a packet came last
	received, sentBefore     uint64    // packets received so far, and sent when the last one came
	countedAt                time.Time // begin of the window in which losses are counted
	sentAtStart, lostAtStart uint64
}

// doubtful reports whether the other end should be asked for a sign of life: it has been silent although we send, it has
// been silent for long, or most of what we send is lost, as when a path has become too narrow for our packets.
func (v *vitals) doubtful(now time.Time, s quic.ConnectionStats) bool {
	if s.PacketsReceived != v.received {
		v.heardAt, v.received, v.sentBefore = now, s.PacketsReceived, s.PacketsSent
	}
	quiet := now.Sub(v.heardAt)
	doubt := quiet > idleProbe || quiet > quietLimit && s.PacketsSent > v.sentBefore
	if now.Sub(v.countedAt) >= quietLimit {
		sent, lost := s.PacketsSent-v.sentAtStart, s.PacketsLost-v.lostAtStart
		doubt = doubt || lost >= manyLost && lost > sent/2
		v.countedAt, v.sentAtStart, v.lostAtStart = now, s.PacketsSent, s.PacketsLost
	}
	return doubt
}

// ask pings until the gateway answers, telling the loop about the first failure and the recovery.
func (m *Member) ask(ctx context.Context, l *memberLink) error {
	suspect := false
	for {
		wait, cancel := context.WithTimeout(ctx, answerLimit)
		// Padding makes full-sized packets of question and answer: a path that carries only small ones counts as none.
		_, err := l.session.Ping(wait, masque.MaxPingPadding)
		if err != nil && !errors.Is(err, masque.ErrClosed) {
			<-wait.Done() // a full queue answers at once
		}
		cancel()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			if suspect {
				m.tell(memberMessage{alive: true, link: l})
			}
			return nil
		case errors.Is(err, masque.ErrClosed):
			return err
		case !suspect:
			suspect = true
			m.tell(memberMessage{suspect: true, link: l})
		}
	}
}
