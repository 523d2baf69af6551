package crowd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
)

// portMessages is how many messages a member receives at once: its window is in one or two.
const portMessages = 4

// port is a socket of one member, or of all that are idle.
type port struct {
	crowd    *Crowd
	conn     *udp.Conn
	members  map[lane.ConnectionID]*member // not changed while run
	messages [portMessages]udp.Message
	frames   lane.Frames
}

func (c *Crowd) newPort() (*port, error) {
	conn, err := c.cfg.Socket(context.Background())
	if err != nil {
		return nil, fmt.Errorf("crowd: %w", err)
	}
	p := &port{crowd: c, conn: conn, members: make(map[lane.ConnectionID]*member)}
	for i := range p.messages {
		p.messages[i].Data = make([]byte, udp.MaxReceiveBytes)
	}
	c.ports = append(c.ports, p)
	return p, nil
}

func (p *port) add(id lane.ConnectionID, m *member) { p.members[id] = m }

// run takes what comes until the socket is closed.
func (p *port) run() {
	for {
		n, err := p.conn.Receive(p.messages[:])
		if err != nil {
			if !errors.Is(err, udp.ErrClosed) {
				p.crowd.fail(fmt.Errorf("crowd: members' socket: %w", err))
			}
			return
		}
		for i := range p.messages[:n] {
			p.message(&p.messages[i], p.crowd.control.now())
		}
	}
}

// message takes the datagrams of a message, those of one member after the other.
func (p *port) message(message *udp.Message, nowNanos int64) {
	var last *member
	for rest := message.Data; len(rest) > 0; {
		datagram := rest[:min(message.SegmentBytes, len(rest))]
		rest = rest[len(datagram):]
		if len(datagram) < lane.MinPacketBytes {
			continue
		}
		m := p.members[lane.ConnectionID(datagram[1:])]
		if m != last && last != nil {
			last.report(nowNanos)
		}
		if last = m; m != nil {
			m.take(datagram, &p.frames, nowNanos)
		}
	}
	if last != nil {
		last.report(nowNanos)
	}
}

// mend looks for lost packets until the crowd ends.
func (c *Crowd) mend() {
	tick := time.NewTicker(lostAfter)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			for _, f := range c.flows {
				f.mend(c.active)
			}
		case <-c.flows[Up].done:
			return
		}
	}
}
