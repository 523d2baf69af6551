package lane

import (
	"errors"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
)

func TestOfferWithoutCommonSuite(t *testing.T) {
	config := testConfig(keyed(1))
	config.Suites = []aead.Suite{aead.AES128GCM}
	client, server := must(NewClient(config)), must(NewServer(testConfig(keyed(2))))
	cs, ss := sessionPair("one", keyschedule.Client)
	out := must(client.Start(cs, 0))
	out = exchange(t, server, ss, message(t, out, KindOffer), 0)
	if event(t, out, EventClosed).Reason != ReasonSuite {
		t.Error("closed for another reason")
	}
	out = exchange(t, client, cs, message(t, out, KindRefusal), 0)
	if event(t, out, EventClosed).Reason != ReasonSuite {
		t.Error("closed for another reason")
	}
}

func TestOfferTwiceAndUnanswered(t *testing.T) {
	client, server := must(NewClient(testConfig(keyed(1)))), must(NewServer(testConfig(keyed(2))))
	cs, ss := sessionPair("one", keyschedule.Client)
	offer := message(t, must(client.Start(cs, 0)), KindOffer)
	if _, err := client.Start(cs, 0); !errors.Is(err, ErrIgnored) {
		t.Errorf("started twice: %v", err)
	}
	a := message(t, exchange(t, server, ss, offer, 0), KindAccept)
	again := exchange(t, server, ss, offer, 0)
	if b := message(t, again, KindAccept); string(a) != string(b) || len(again.Events) != 0 {
		t.Error("a repeated offer makes another lane")
	}
	wantEvents(t, client.Tick(int64(AnswerWithin)), EventClosed)
	if _, err := client.Step(cs, a, int64(AnswerWithin)); !errors.Is(err, ErrIgnored) {
		t.Errorf("late accept: %v", err)
	}
}

func TestAcceptOfWhatWasNotOffered(t *testing.T) {
	client, server := must(NewClient(testConfig(keyed(1)))), must(NewServer(testConfig(keyed(2))))
	cs, ss := sessionPair("one", keyschedule.Client)
	offer := message(t, must(client.Start(cs, 0)), KindOffer)
	m := must(Parse(message(t, exchange(t, server, ss, offer, 0), KindAccept))).(*Accept)
	other := *m
	other.Offer[0] ^= 1
	if _, err := client.Step(cs, other.Append(nil), 0); !errors.Is(err, ErrIgnored) {
		t.Errorf("accept of another offer: %v", err)
	}
	m.Suite = aead.AES128GCM
	if _, err := client.Step(cs, m.Append(nil), 0); !errors.Is(err, ErrViolation) || !client.Closed() {
		t.Errorf("suite that was not offered: %v", err)
	}
}

// TestTranscriptBinds changes what both must agree on and sees different lanes.
func TestTranscriptBinds(t *testing.T) {
	n := must(NewClient(testConfig(keyed(1))))
	base := n.transcript([]byte("ab"), []byte("c"))
	if n.transcript([]byte("a"), []byte("bc")) == base {
		t.Error("the border between offer and accept is not bound")
	}
	config := testConfig(keyed(1))
	config.Peer[31] = 1
	if must(NewClient(config)).transcript([]byte("ab"), []byte("c")) == base {
		t.Error("the peer is not bound")
	}
	if must(NewServer(testConfig(keyed(1)))).transcript([]byte("ab"), []byte("c")) == base {
		t.Error("the roles are not bound")
	}
	if must(NewServer(testConfig(keyed(2)))).transcript([]byte("ab"), []byte("c")) != base {
		t.Error("the two ends differ")
	}
}

func TestBadConfig(t *testing.T) {
	for name, edit := range map[string]func(c *Config){
		"number":       func(c *Config) { c.Number = MaxLaneNumber + 1 },
		"stream":       func(c *Config) { c.QuarterStreamID = MaxQuarterStreamID + 1 },
		"packet":       func(c *Config) { c.MaxPacketBytes = 0 },
		"no suite":     func(c *Config) { c.Suites = nil },
		"suite twice":  func(c *Config) { c.Suites = []aead.Suite{1, 1} },
		"bad suite":    func(c *Config) { c.Suites = []aead.Suite{77} },
		"kind twice":   func(c *Config) { c.Contexts = []ContextKind{1, 1} },
		"many kinds":   func(c *Config) { c.Contexts = make([]ContextKind, MaxContexts+1) },
		"no issuer":    func(c *Config) { c.Issue = nil },
		"lane to self": func(c *Config) { c.Peer = c.Local },
	} {
		c := testConfig(keyed(1))
		edit(&c)
		if _, err := NewClient(c); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestExporterFails sees no lane without the session's secret.
func TestExporterFails(t *testing.T) {
	for name, export := range map[string]func(string, []byte, int) ([]byte, error){
		"error": func(string, []byte, int) ([]byte, error) { return nil, errors.New("closed") },
		"short": func(string, []byte, int) ([]byte, error) { return make([]byte, 31), nil },
	} {
		client, server := must(NewClient(testConfig(keyed(1)))), must(NewServer(testConfig(keyed(2))))
		out := must(client.Start(&Session{Role: keyschedule.Client}, 0))
		out, err := server.Step(&Session{Role: keyschedule.Server, Export: export}, message(t, out, KindOffer), 0)
		if !errors.Is(err, ErrInternal) || len(out.Messages) != 1 || Kind(out.Messages[0].Payload[0]) != KindRefusal {
			t.Errorf("%s: %v, %d messages", name, err, len(out.Messages))
		}
	}
}
