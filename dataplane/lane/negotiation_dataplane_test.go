package lane

import (
	"errors"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
)

// engine obeys a machine with a real sealer and opener, as the dataplane does.
type engine struct {
	t      *testing.T
	n      *Negotiation
	header *Params
	sealer *Sealer
	opener *Opener
	silent bool
	wiped  []uint32
}

// obey does what the machine asks for, at a time.
func (e *engine) obey(out Output, now int64) Output {
	e.t.Helper()
	for _, ev := range out.Events {
		switch ev.Kind {
		case EventReady:
			e.header = ev.Params
		case EventInstall:
			e.install(ev)
		case EventSeal:
			e.silent = false
			if e.sealer == nil {
				e.sealer = must(NewSealer(SealerConfig{
					Keys: Keys{ev.Epoch, ev.Seal}, Header: e.header.HeaderSeal, ID: e.header.PeerIDs[0].ID,
					MaxPacketBytes: e.header.SendBytes,
				}))
				break
			}
			e.sealer.Begin()
			if err := e.sealer.Install(Keys{ev.Epoch, ev.Seal}); err != nil && e.sealer.Epoch() != ev.Epoch {
				e.t.Fatal(err)
			}
		case EventSealStop:
			e.silent = true
		case EventAdopted:
			if err := e.opener.Keep(ev.Epoch, now); err != nil {
				e.t.Fatal(err)
			}
			if e.sealer != nil {
				e.sealer.Withdraw()
			}
		case EventWipe:
			e.wiped = append(e.wiped, ev.Epoch)
			e.opener.Expire(now)
		}
	}
	return out
}

func (e *engine) install(ev Event) {
	e.t.Helper()
	if e.opener == nil {
		e.opener = must(NewOpener(OpenerConfig{Keys: Keys{ev.Epoch, ev.Open}, Header: e.header.HeaderOpen}))
		return
	}
	if err := e.opener.Install(Keys{ev.Epoch, ev.Open}); err != nil {
		e.t.Fatal(err)
	}
	if e.n.Bound().Role == keyschedule.Server { // no help needed when the client's first packet comes
		if err := e.sealer.InstallAfter(Keys{ev.Epoch, ev.Seal}, e.opener); err != nil {
			e.t.Fatal(err)
		}
	}
}

// packet seals a PING at e, opens it at to, and tells to's machine.
func (e *engine) packet(to *engine, now int64) {
	e.t.Helper()
	e.sealer.Begin()
	out := make([]byte, 100)
	n, verdict := e.sealer.Seal(out, AppendPing(nil))
	if verdict != VerdictOK || e.silent {
		e.t.Fatalf("sealing: %v, silent %v", verdict, e.silent)
	}
	if _, _, verdict = to.opener.Open(out[:n], now); verdict != VerdictOK {
		e.t.Fatalf("epoch %d does not open: %v", e.sealer.Epoch(), verdict)
	}
	if epoch, opened := to.opener.Epoch(); opened {
		to.obey(to.n.Opened(epoch, now), now)
	}
}

// TestEventsDriveSealerAndOpener goes through offer, ratchet, two adoptions, one of them by the other side, and sees that
// packets open both ways at every stage.
func TestEventsDriveSealerAndOpener(t *testing.T) {
	client := &engine{t: t, n: must(NewClient(testConfig(keyed(1))))}
	server := &engine{t: t, n: must(NewServer(testConfig(keyed(2))))}
	cs, ss := sessionPair("one", keyschedule.Client)
	now := second
	out := client.obey(must(client.n.Start(cs, now)), now)
	out = server.obey(exchange(t, server.n, ss, message(t, out, KindOffer), now), now)
	client.obey(exchange(t, client.n, cs, message(t, out, KindAccept), now), now)
	both := func(epoch uint32) {
		t.Helper()
		client.packet(server, now)
		server.packet(client, now)
		client.packet(server, now)
		if c, s := client.sealer.Epoch(), server.sealer.Epoch(); c != epoch || s != epoch {
			t.Fatalf("epochs %d and %d, not %d", c, s, epoch)
		}
	}
	both(0)

	ratchet := func(asks, answers *engine, from, to *Session, out Output) {
		t.Helper()
		request := message(t, out, KindRatchetRequest)
		answer := message(t, answers.obey(exchange(t, answers.n, to, request, now), now), KindRatchetAnswer)
		answers.packet(asks, now) // still in the epoch before
		asks.obey(exchange(t, asks.n, from, answer, now), now)
		asks.packet(answers, now)
		answers.packet(asks, now)
	}
	now += int64(RatchetAfter)
	ratchet(client, server, cs, ss, client.obey(client.n.Tick(now), now))
	both(1)
	now += int64(KeepFor)
	client.obey(client.n.Tick(now), now)
	server.obey(server.n.Tick(now), now)
	if len(client.wiped) != 1 || len(server.wiped) != 1 || !client.opener.Expire(now) || !server.opener.Expire(now) {
		t.Errorf("epoch 0 is still there: %v, %v", client.wiped, server.wiped)
	}

	// The answer to the next request is lost with its session: the server has an epoch that is void.
	now += int64(RatchetAfter)
	request := message(t, client.obey(client.n.Tick(now), now), KindRatchetRequest)
	server.obey(exchange(t, server.n, ss, request, now), now)
	client.n.SessionEnded(cs, false, now)
	both(1)
	cs, ss = sessionPair("two", keyschedule.Client)
	out = must(client.n.Resume(cs, now))
	out = server.obey(exchange(t, server.n, ss, message(t, out, KindAdoptRequest), now), now)
	out = client.obey(exchange(t, client.n, cs, message(t, out, KindAdoptAnswer), now), now)
	both(1)
	ratchet(client, server, cs, ss, out)
	both(2)

	// Now the server dials, right after a ratchet whose first packet it has not seen yet.
	now += int64(RatchetAfter)
	request = message(t, client.obey(client.n.Tick(now), now), KindRatchetRequest)
	answer := message(t, server.obey(exchange(t, server.n, ss, request, now), now), KindRatchetAnswer)
	client.obey(exchange(t, client.n, cs, answer, now), now)
	client.n.SessionEnded(cs, false, now)
	server.n.SessionEnded(ss, false, now)
	ss, cs = sessionPair("three", keyschedule.Client)
	out = must(server.n.Resume(ss, now))
	out = client.obey(exchange(t, client.n, cs, message(t, out, KindAdoptRequest), now), now)
	out = server.obey(exchange(t, server.n, ss, message(t, out, KindAdoptAnswer), now), now)
	both(3)
	ratchet(server, client, ss, cs, out)
	both(4)

	now += int64(SealFor)
	client.obey(client.n.Tick(now), now)
	if _, err := client.n.Resume(cs, now); !client.silent || !errors.Is(err, ErrIgnored) {
		t.Error("seals after 180 s")
	}
}
