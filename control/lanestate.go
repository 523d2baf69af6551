package control

import (
	"errors"
	"net/netip"
	"sync/atomic"

	"github.com/aethertunnel/aethertunnel/dataplane"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

// laneState is one lane.
type laneState struct {
	party  *laneParty
	n      *lane.Negotiation
	lane   *dataplane.Lane // nil before both sides have agreed
	issued []lane.ConnectionID
	failed bool        // the dataplane could not do what was agreed
	told   atomic.Bool // it is among the news
}

// heard reports whether a packet of the lane has been opened.
func (c *laneState) heard() bool {
	if c.lane == nil {
		return false
	}
	_, ok := c.lane.Epoch()
	return ok
}

// progress counts the packets that the lane has sealed and opened.
func (c *laneState) progress() (sealed, opened uint64) {
	if c.lane == nil {
		return 0, 0
	}
	return c.lane.Progress()
}

// do is one thing that a negotiation asks for.
func (c *laneState) do(e lane.Event) error {
	switch e.Kind {
	case lane.EventReady:
		return c.ready(e.Params)
	case lane.EventIssue:
		if c.lane != nil {
			c.lane.Issue(e.ID)
			return nil
		}
		c.issued = append(c.issued, e.ID)
	case lane.EventAdoptionFailed:
		return c.replace()
	case lane.EventClosed:
		if c.lane != nil {
			c.lane.Close()
		}
		c.party.forget(c, e.Reason)
	}
	if c.lane == nil {
		return nil
	}
	switch e.Kind {
	case lane.EventRetire:
		c.lane.Retire(e.ID)
	case lane.EventPeerIDs:
		c.lane.AddPeerIDs(e.PeerIDs)
	case lane.EventInstall:
		return c.lane.Install(e.Epoch, e.Open, e.Seal)
	case lane.EventSeal:
		return c.lane.Seal(e.Epoch, e.Seal)
	case lane.EventAdopted:
		if s := c.session(); s != nil { // which may have been made elsewhere than the one before
			c.lane.Try(s.link.currentRemote())
		}
		return c.lane.Keep(e.Epoch)
	case lane.EventWipe:
		c.lane.Expire()
	case lane.EventSealStop:
		c.lane.SealStop()
	case lane.EventPing:
		c.lane.Ping()
	}
	return nil
}

// replace has a new lane made, if we are the ones who do that, for one that cannot be adopted. That one goes on as long as
// it can.
func (c *laneState) replace() error {
	if c.party.current != c {
		return nil
	}
	if err := c.party.offerNew(); err != nil {
		c.party.lanes.notice("lane: offer", err)
	}
	return nil
}

// session is the one that the lane is bound to.
func (c *laneState) session() *laneSession { return c.party.live[c.n.Bound()] }

// ready makes the lane that both sides have agreed on.
func (c *laneState) ready(params *lane.Params) error {
	s, ls := c.session(), c.party.lanes
	if s == nil {
		return errors.New("the session has ended")
	}
	to, err := s.socket.NewDestination(s.link.currentRemote(), netip.Addr{}, 0)
	if err != nil {
		return err
	}
	c.lane, err = ls.cfg.Dataplane.NewLane(dataplane.LaneConfig{
		Peer: dataplane.PeerID(c.party.peer), Conn: s.socket.Conn, To: to, Params: params,
		PacketBytes: s.link.session.PathBytes(),
		Opened:      func(uint32) { ls.news.add(c) },
		Failed:      func() { ls.news.add(c) },
	})
	if err != nil {
		return err
	}
	for _, id := range c.issued {
		c.lane.Issue(id)
	}
	c.issued = nil
	return nil
}
