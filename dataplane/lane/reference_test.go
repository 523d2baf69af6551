package lane

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
)

// This file is a second implementation of PROTOCOL.md, for the standard library and bytes alone: it shares no code
// with the package, with crypto/kem or with crypto/keyschedule. It speaks AES-256-GCM (1) only.

var updateVectors = flag.Bool("update", false, "write testdata/vectors.json anew")

// ref is one end of a lane.
type ref struct {
	client         bool // of the lane
	clientID, srvr [32]byte
	number         byte
	laneID         []byte
	epoch          uint32
	chain          []byte
	offer          []byte
	mlkemKey       *mlkem.DecapsulationKey768
	x25519Key      *ecdh.PrivateKey
}

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func be32(n uint32) []byte { return []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)} }

func hash(parts ...[]byte) []byte {
	sum := sha256.Sum256(cat(parts...))
	return sum[:]
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// refLabel is HKDF-Expand-Label.
func refLabel(secret []byte, label string, context []byte, n int) []byte {
	full := "tls13 " + label
	info := cat([]byte{byte(n >> 8), byte(n), byte(len(full))}, []byte(full), []byte{byte(len(context))}, context)
	return must(hkdf.Expand(sha256.New, secret, string(info), n))
}

// refExport stands for a session's TLS exporter.
func refExport(session string) func(string, []byte, int) ([]byte, error) {
	return func(label string, context []byte, n int) ([]byte, error) {
		if label != "EXPORTER-aethertunnel-lane-v1" || len(context) != 32 || n != 32 {
			panic("wrong use of the exporter")
		}
		return hash([]byte(session), context), nil
	}
}

// newKey makes the ephemeral pair and returns its public part.
func (r *ref) newKey(seed []byte) []byte {
	r.mlkemKey = must(mlkem.NewDecapsulationKey768(seed[:64]))
	r.x25519Key = must(ecdh.X25519().NewPrivateKey(seed[64:96]))
	return cat(r.mlkemKey.EncapsulationKey().Bytes(), r.x25519Key.PublicKey().Bytes())
}

func (r *ref) decapsulate(ciphertext []byte) []byte {
	m := must(r.mlkemKey.Decapsulate(ciphertext[:1088]))
	x := must(r.x25519Key.ECDH(must(ecdh.X25519().NewPublicKey(ciphertext[1088:]))))
	return cat(m, x)
}

func refEncapsulate(public []byte) (ciphertext, shared []byte) {
	m, c := must(mlkem.NewEncapsulationKey768(public[:1184])).Encapsulate()
	own := must(ecdh.X25519().GenerateKey(rand.Reader))
	x := must(own.ECDH(must(ecdh.X25519().NewPublicKey(public[1184:]))))
	return cat(c, own.PublicKey().Bytes()), cat(m, x)
}

func refID(seq byte) []byte {
	return cat([]byte{seq, 0xcc, 0, 0, 0, 0, 0, 1}, bytes.Repeat([]byte{seq}, 16))
}

// makeOffer: kind, lane, quarter stream ID, longest packet, suites, contexts, four connection IDs, public key.
func (r *ref) makeOffer(seed []byte) []byte {
	r.offer = cat([]byte{1, r.number, 5, 0x05, 0xdc, 1, 1, 2, 2, 1, 4, 3}, refID(0), refID(1), refID(2), refID(3), r.newKey(seed))
	return r.offer
}

// makeAccept takes an offer whose lists have the lengths of suites and contexts, and makes chain 0.
func (r *ref) makeAccept(offer []byte, export func(string, []byte, int) ([]byte, error)) []byte {
	r.offer = offer
	ciphertext, shared := refEncapsulate(offer[len(offer)-1216:])
	accept := cat([]byte{2, offer[1]}, hash(offer)[:16], []byte{1, 0x05, 0xdc, 1, 1, 3},
		refID(0), refID(1), refID(2), refID(3), ciphertext)
	r.begin(accept, shared, export)
	return accept
}

func (r *ref) takeAccept(accept []byte, export func(string, []byte, int) ([]byte, error)) {
	r.begin(accept, r.decapsulate(accept[len(accept)-1120:]), export)
}

func (r *ref) begin(accept, shared []byte, export func(string, []byte, int) ([]byte, error)) {
	transcript := hash([]byte{0}, r.clientID[:], []byte{1}, r.srvr[:],
		be32(uint32(len(r.offer))), r.offer, be32(uint32(len(accept))), accept)
	r.laneID = transcript[:16]
	x := must(export("EXPORTER-aethertunnel-lane-v1", transcript, 32))
	r.chain = must(hkdf.Extract(sha256.New, shared, x))
}

func (r *ref) adoptValue(export func(string, []byte, int) ([]byte, error)) []byte {
	return must(export("EXPORTER-aethertunnel-lane-v1", hash([]byte("adopt"), r.laneID), 32))
}

// proof of one epoch, by the end with the given role.
func (r *ref) proof(role byte, value []byte) []byte {
	mac := hmac.New(sha256.New, refLabel(r.chain, "adopt", cat([]byte{role}, be32(r.epoch)), 32))
	mac.Write(cat(value, r.laneID))
	return cat(be32(r.epoch), mac.Sum(nil))
}

// renewal retires and issues: nothing, and the first four.
func refRenewal() []byte {
	out := []byte{0, 4}
	for i := range byte(4) {
		out = cat(out, be32(uint32(i)), refID(i))
	}
	return out
}

func (r *ref) ratchetMessage(kind byte, end []byte) []byte {
	return cat([]byte{kind, r.number}, r.laneID, be32(r.epoch+1), refRenewal(), end)
}

func (r *ref) next(shared, request, answer, value []byte) {
	r.chain = must(hkdf.Extract(sha256.New, cat(shared, hash(request, answer), value), r.chain))
	r.epoch++
}

// keys of one direction: 0 is sealed by the lane's client.
func (r *ref) keys(direction byte) (key, iv, hp []byte) {
	traffic := refLabel(r.chain, "lane", cat(be32(r.epoch), []byte{r.number, direction, 1}), 32)
	return refLabel(traffic, "quic key", nil, 32), refLabel(traffic, "quic iv", nil, 12), refLabel(traffic, "quic hp", nil, 32)
}

// sameKey compares a key of the package with one of ours.
func sameKey(t *testing.T, what string, got *aead.PacketKey, key, iv []byte) {
	t.Helper()
	if got == nil {
		t.Fatalf("%s: no key", what)
	}
	gcm := must(cipher.NewGCM(must(aes.NewCipher(key))))
	have := got.IV()
	if !bytes.Equal(have[:], iv) || !bytes.Equal(got.AEAD().Seal(nil, iv, iv, key), gcm.Seal(nil, iv, iv, key)) {
		t.Errorf("%s: keys differ", what)
	}
}

func sameHeaderKey(t *testing.T, what string, got *aead.HeaderKey, hp []byte) {
	t.Helper()
	var mask [aead.MaskBytes]byte
	sample := [aead.SampleBytes]byte{1, 2, 3}
	got.Mask(&mask, &sample)
	want := make([]byte, 16)
	must(aes.NewCipher(hp)).Encrypt(want, sample[:])
	if !bytes.Equal(mask[:], want) {
		t.Errorf("%s: header keys differ", what)
	}
}

func randomSeed() []byte {
	seed := make([]byte, 96)
	must(rand.Read(seed))
	return seed
}

// TestReferenceClient lets the second implementation offer, ratchet and adopt.
func TestReferenceClient(t *testing.T) {
	config := testConfig(keyed(2))
	server := must(NewServer(config))
	r := &ref{client: true, clientID: config.Peer, srvr: config.Local}
	session := &Session{Role: keyschedule.Server, Export: refExport("one")}

	out := exchange(t, server, session, r.makeOffer(randomSeed()), 1)
	r.takeAccept(message(t, out, KindAccept), session.Export)
	if id, ok := server.ID(); !ok || !bytes.Equal(id[:], r.laneID) {
		t.Fatal("lane IDs differ")
	}
	p := event(t, out, EventReady).Params
	for direction, got := range []*aead.HeaderKey{p.HeaderOpen, p.HeaderSeal} {
		_, _, hp := r.keys(byte(direction))
		sameHeaderKey(t, "header", got, hp)
	}
	if len(p.Send) != 2 || p.Send[0] != (Context{2, ContextPartialChecksum}) || p.SendBytes != 1500 || p.QuarterStreamID != 5 {
		t.Errorf("params %+v", p)
	}
	compare := func(out Output) {
		t.Helper()
		e := event(t, out, EventInstall)
		key, iv, _ := r.keys(0)
		sameKey(t, "open", e.Open, key, iv)
		key, iv, _ = r.keys(1)
		sameKey(t, "seal", e.Seal, key, iv)
		if e.Epoch != r.epoch {
			t.Errorf("epoch %d, not %d", e.Epoch, r.epoch)
		}
	}
	compare(out)

	ratchet := func(session *Session, value []byte, now int64) {
		t.Helper()
		server.Opened(r.epoch, now)
		request := r.ratchetMessage(4, r.newKey(randomSeed()))
		out := exchange(t, server, session, request, now)
		answer := message(t, out, KindRatchetAnswer)
		r.next(r.decapsulate(answer[len(answer)-1120:]), request, answer, value)
		compare(out)
		server.Opened(r.epoch, now)
	}
	ratchet(session, nil, 120*second)
	ratchet(session, nil, 240*second)

	server.SessionEnded(session, false, 250*second)
	later := &Session{Role: keyschedule.Server, Export: refExport("two")}
	value := r.adoptValue(later.Export)
	request := cat([]byte{6, 0}, r.laneID, be32(1), []byte{1}, r.proof(0, value))
	out = exchange(t, server, later, request, 300*second)
	want := cat([]byte{7, 0}, r.laneID, []byte{0}, be32(1), []byte{1}, r.proof(1, value))
	if got := message(t, out, KindAdoptAnswer); !bytes.Equal(got, want) {
		t.Errorf("adopt answer %x, want %x", got, want)
	}
	ratchet(later, value, 301*second) // takes the new exporter value
	ratchet(later, nil, 421*second)   // and the one after does not
}

// TestReferenceServer lets the second implementation accept, answer and be adopted.
func TestReferenceServer(t *testing.T) {
	config := testConfig(keyed(1))
	client := must(NewClient(config))
	r := &ref{clientID: config.Local, srvr: config.Peer}
	session := &Session{Role: keyschedule.Client, Export: refExport("one")}

	out, err := client.Start(session, 1)
	if err != nil {
		t.Fatal(err)
	}
	out = exchange(t, client, session, r.makeAccept(message(t, out, KindOffer), session.Export), 2)
	if id, ok := client.ID(); !ok || !bytes.Equal(id[:], r.laneID) {
		t.Fatal("lane IDs differ")
	}
	compare := func(out Output) {
		t.Helper()
		e := event(t, out, EventInstall)
		key, iv, _ := r.keys(1)
		sameKey(t, "open", e.Open, key, iv)
		key, iv, _ = r.keys(0)
		sameKey(t, "seal", event(t, out, EventSeal).Seal, key, iv)
	}
	compare(out)

	ratchet := func(session *Session, out Output, value []byte, now int64) {
		t.Helper()
		request := message(t, out, KindRatchetRequest)
		ciphertext, shared := refEncapsulate(request[len(request)-1216:])
		answer := r.ratchetMessage(5, ciphertext)
		r.next(shared, request, answer, value)
		compare(exchange(t, client, session, answer, now))
		client.Opened(r.epoch, now)
		client.Tick(now + 3*second)
	}
	client.Opened(0, 3)
	ratchet(session, client.Tick(120*second+1), nil, 121*second)

	client.SessionEnded(session, false, 130*second)
	later := &Session{Role: keyschedule.Client, Export: refExport("two")}
	value := r.adoptValue(later.Export)
	if out, err = client.Resume(later, 140*second); err != nil {
		t.Fatal(err)
	}
	want := cat([]byte{6, 0}, r.laneID, be32(1), []byte{1}, r.proof(0, value))
	if got := message(t, out, KindAdoptRequest); !bytes.Equal(got, want) {
		t.Errorf("adopt request %x, want %x", got, want)
	}
	out = exchange(t, client, later, cat([]byte{7, 0}, r.laneID, []byte{0}, be32(1), []byte{1}, r.proof(1, value)), 141*second)
	ratchet(later, out, value, 142*second)
	ratchet(later, client.Tick(262*second), nil, 262*second)
}

// vector is one recorded exchange, in hexadecimal.
type vector struct {
	ClientID, ServerID, Seed, Offer, Accept, OfferID, LaneID, Exporter, Chain0   string
	ClientKey, ClientIV, ClientHP, ServerKey, ServerIV, ServerHP                 string
	RatchetSeed, RatchetRequest, RatchetAnswer, AdoptExporter                    string
	Chain1, ClientKey1, ClientIV1, Chain1Adopted, AdoptMACClient, AdoptMACServer string
}

const vectorFile = "testdata/vectors.json"

// TestVectors recomputes the recorded exchange, and holds what the package computes from bytes alone against it.
func TestVectors(t *testing.T) {
	if *updateVectors {
		record(t)
	}
	var v vector
	if err := json.Unmarshal(must(os.ReadFile(vectorFile)), &v); err != nil {
		t.Fatal(err)
	}
	if again := recompute(v); again != v {
		t.Errorf("recomputed\n%+v\nrecorded\n%+v", again, v)
	}
	for _, text := range []string{v.Offer, v.Accept, v.RatchetRequest, v.RatchetAnswer} {
		payload := must(hex.DecodeString(text))
		m, err := Parse(payload)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(m.Append(nil), payload) {
			t.Errorf("%T does not survive its codec", m)
		}
	}
	offer, accept := must(hex.DecodeString(v.Offer)), must(hex.DecodeString(v.Accept))
	id := OfferIDOf(offer)
	n := must(NewServer(Config{
		Local: NodeID(must(hex.DecodeString(v.ServerID))), Peer: NodeID(must(hex.DecodeString(v.ClientID))),
		MaxPacketBytes: 1500, Suites: []aead.Suite{1}, Issue: keyed(2).issue,
	}))
	transcript := n.transcript(offer, accept)
	if hex.EncodeToString(id[:]) != v.OfferID || hex.EncodeToString(transcript[:16]) != v.LaneID {
		t.Error("the package names offer or lane differently")
	}
}

// record makes a new vector. ML-KEM's ciphertexts are random, so it differs every time.
func record(t *testing.T) {
	t.Helper()
	text := hex.EncodeToString
	clientID, serverID := bytes.Repeat([]byte{0xc1}, 32), bytes.Repeat([]byte{0x5e}, 32)
	seed, seed1 := randomSeed(), randomSeed()
	client := &ref{clientID: [32]byte(clientID), srvr: [32]byte(serverID), number: 2}
	server := &ref{clientID: [32]byte(clientID), srvr: [32]byte(serverID), number: 2}
	offer := client.makeOffer(seed)
	accept := server.makeAccept(offer, refExport("vector"))
	client.takeAccept(accept, refExport("vector"))
	request := client.ratchetMessage(4, client.newKey(seed1))
	ciphertext, _ := refEncapsulate(request[len(request)-1216:])
	answer := server.ratchetMessage(5, ciphertext)
	v := vector{
		ClientID: text(clientID), ServerID: text(serverID), Seed: text(seed), Offer: text(offer), Accept: text(accept),
		RatchetSeed: text(seed1), RatchetRequest: text(request), RatchetAnswer: text(answer),
	}
	if err := os.WriteFile(vectorFile, append(must(json.MarshalIndent(recompute(v), "", "\t")), '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// recompute derives everything that the messages, the seeds and the exporter determine.
func recompute(v vector) vector {
	text := hex.EncodeToString
	raw := func(s string) []byte { return must(hex.DecodeString(s)) }
	r := &ref{clientID: [32]byte(raw(v.ClientID)), srvr: [32]byte(raw(v.ServerID)), number: 2, offer: raw(v.Offer)}
	r.newKey(raw(v.Seed))
	v.OfferID = text(hash(r.offer)[:16])
	r.takeAccept(raw(v.Accept), func(label string, context []byte, n int) ([]byte, error) {
		x := must(refExport("vector")(label, context, n))
		v.Exporter = text(x)
		return x, nil
	})
	v.LaneID, v.Chain0 = text(r.laneID), text(r.chain)
	hexKeys := func(direction byte) (string, string, string) {
		key, iv, hp := r.keys(direction)
		return text(key), text(iv), text(hp)
	}
	v.ClientKey, v.ClientIV, v.ClientHP = hexKeys(0)
	v.ServerKey, v.ServerIV, v.ServerHP = hexKeys(1)
	value := r.adoptValue(refExport("vector, later"))
	v.AdoptExporter = text(value)
	v.AdoptMACClient, v.AdoptMACServer = text(r.proof(0, value)[4:]), text(r.proof(1, value)[4:])
	r.newKey(raw(v.RatchetSeed))
	answer := raw(v.RatchetAnswer)
	shared := r.decapsulate(answer[len(answer)-1120:])
	adopted := *r
	adopted.next(shared, raw(v.RatchetRequest), answer, value)
	v.Chain1Adopted = text(adopted.chain)
	r.next(shared, raw(v.RatchetRequest), answer, nil)
	v.Chain1 = text(r.chain)
	v.ClientKey1, v.ClientIV1, _ = hexKeys(0)
	return v
}
