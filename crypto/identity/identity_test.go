package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/iotest"
)

func newKey(t *testing.T) *Private {
	t.Helper()
	key, err := Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestIDText(t *testing.T) {
	t.Parallel()
	id := newKey(t).ID()
	text := id.String()
	back, err := ParseID(text)
	if err != nil || back != id {
		t.Fatalf("ParseID(%q) = %v, %v", text, back, err)
	}
	if !strings.HasPrefix(text, id.Short()) || len(id.Short()) != 8 {
		t.Errorf("short form %q of %q", id.Short(), text)
	}
	spare := text[:len(text)-1] + "b" // a spare bit set, if it was not
	if spare == text {
		t.Fatal("the last character of an id has spare bits set")
	}
	for _, bad := range []string{
		"", text[1:], text + "a", strings.ToUpper(text), spare, text[:51] + "\n",
		text[:51] + "=",
	} {
		if _, err := ParseID(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("ParseID(%q): %v", bad, err)
		}
	}
	var decoded struct{ ID ID }
	encoded, err := json.Marshal(struct{ ID ID }{id})
	if err != nil || json.Unmarshal(encoded, &decoded) != nil || decoded.ID != id {
		t.Errorf("JSON %s: %v", encoded, err)
	}
}

func TestPublicCodecs(t *testing.T) {
	t.Parallel()
	public := newKey(t).Public()
	binary, err := public.MarshalBinary()
	if err != nil || len(binary) != PublicSize {
		t.Fatalf("%d bytes, %v", len(binary), err)
	}
	parsed, err := ParsePublic(binary)
	if err != nil || !parsed.Equal(public) || parsed.ID() != public.ID() {
		t.Fatalf("ParsePublic: %v", err)
	}
	text, err := public.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var fromText Public
	if err := fromText.UnmarshalText(text); err != nil || !fromText.Equal(public) {
		t.Fatalf("UnmarshalText: %v", err)
	}
	// 1985 bytes leave one spare group of bits in the last character, and base64 ignores line breaks unless
	// told.
	broken := [][]byte{text[1:], append(bytes.Clone(text), 'A'), append(bytes.Clone(text[:len(text)-1]), '\n')}
	last := bytes.Clone(text)
	last[len(last)-1]++
	for i, bad := range append(broken, last) {
		if err := new(Public).UnmarshalText(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("broken text %d: %v", i, err)
		}
	}
	for _, bad := range [][]byte{
		nil, binary[1:], append(bytes.Clone(binary), 0),
		append([]byte{2}, binary[1:]...),
	} {
		if _, err := ParsePublic(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("ParsePublic of %d bytes: %v", len(bad), err)
		}
	}
	var zero Public
	empty, err := zero.MarshalText()
	if err != nil || len(empty) != 0 || fromText.UnmarshalText(empty) != nil || !fromText.IsZero() {
		t.Errorf("zero key: %q, %v", empty, err)
	}
	if _, err := zero.MarshalBinary(); err == nil {
		t.Error("a zero key has a binary form")
	}
}

// A signature with S = 0 and R the neutral element verifies under a point of small order for a good share of
// all messages. That is what makes such keys worthless, and what shows that each constant in the table is
// one.
func TestSmallOrderKeys(t *testing.T) {
	t.Parallel()
	mldsa := newKey(t).Public().MLDSA()
	forged := make([]byte, ed25519.SignatureSize)
	forged[0] = 1
	for at := 0; at < len(smallOrder); at += 64 {
		for _, sign := range []byte{0, 0x80} {
			key := mustHex(t, smallOrder[at:at+64])
			key[31] |= sign
			accepted := 0
			for message := range 256 {
				if ed25519.Verify(key, []byte{byte(message)}, forged) {
					accepted++
				}
			}
			if neutral := key[0] == 1 && sign != 0; accepted == 0 && !neutral {
				t.Errorf("%x is not of small order", key)
			}
			if _, err := NewPublic(key, mldsa); !errors.Is(err, ErrWeakKey) {
				t.Errorf("NewPublic(%x): %v", key, err)
			}
		}
	}
	for _, low := range []byte{0xed, 0xee, 0xff} { // p, p+1, 2^255-1
		key := bytes.Repeat([]byte{0xff}, 32)
		key[0], key[31] = low, 0x7f
		if _, err := NewPublic(key, mldsa); !errors.Is(err, ErrWeakKey) {
			t.Errorf("not reduced %x: %v", key, err)
		}
	}
}

func TestPrivateEncoding(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	text, err := key.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParsePrivate(text)
	if err != nil || !back.Public().Equal(key.Public()) {
		t.Fatalf("ParsePrivate: %v", err)
	}
	lines := bytes.Split(text, []byte("\n"))
	for i := 1; i < len(lines)-2; i++ { // every line of base64, one character each
		bad := bytes.Clone(text)
		at := bytes.Index(bad, lines[i])
		if bad[at+3] = 'A'; bytes.Equal(bad, text) {
			bad[at+3] = 'B'
		}
		if _, err := ParsePrivate(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("damaged line %d: %v", i, err)
		}
	}
	for _, bad := range [][]byte{
		nil, text[:60], bytes.Replace(text, []byte("NODE"), []byte("MODE"), 2),
		make([]byte, 5000),
	} {
		if _, err := ParsePrivate(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("ParsePrivate of %d bytes: %v", len(bad), err)
		}
	}
	broken := errors.New("no entropy")
	if _, err := Generate(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("Generate without randomness: %v", err)
	}
}

func FuzzParsePublic(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, PublicSize))
	f.Add(append([]byte{formHybrid1, 9}, make([]byte, PublicSize-2)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		public, err := ParsePublic(data)
		if err != nil {
			return
		}
		if back, err := public.MarshalBinary(); err != nil || !bytes.Equal(back, data) {
			t.Fatalf("another encoding came back: %v", err)
		}
	})
}

func FuzzParseText(f *testing.F) {
	f.Add("")
	f.Add(strings.Repeat("a", idTextSize))
	f.Add("-----BEGIN AETHERTUNNEL NODE KEY-----\nAQID\n-----END AETHERTUNNEL NODE KEY-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := ParseID(text); err == nil && id.String() != text {
			t.Fatalf("%q and %q are one id", text, id)
		}
		var public Public
		if err := public.UnmarshalText([]byte(text)); err == nil {
			if back, err := public.MarshalText(); err != nil || string(back) != text {
				t.Fatalf("another text came back: %v", err)
			}
		}
		if key, err := ParsePrivate([]byte(text)); err == nil && key.ID().IsZero() {
			t.Fatal("key without an id")
		}
	})
}
