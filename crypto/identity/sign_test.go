package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
)

func mustHex(t *testing.T, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// vectorKey has the Ed25519 seed of RFC 8032 section 7.1, test 1, and the ML-DSA seed 00 01 … 1f.
func vectorKey(t *testing.T) *Private {
	t.Helper()
	seeds := [seedsSize]byte(mustHex(t, "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"+
		"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"))
	key, err := fromSeeds(&seeds)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestEd25519Vector(t *testing.T) {
	t.Parallel()
	key := vectorKey(t)
	public := mustHex(t, "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
	if !bytes.Equal(key.Public().Ed25519(), public) {
		t.Errorf("public key %x", key.Public().Ed25519())
	}
	want := mustHex(t, "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"+
		"5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b")
	got, err := key.Signer().Sign(nil, nil, &ed25519.Options{})
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("signature %x, %v", got, err)
	}
}

// The numbers and the signature below come from filippo.io/mldsa v1.0.0, an implementation that shares no
// code with circl, and from a framing of the id and message written anew from the documentation of this
// package.
func TestHybridVectorFromAnotherImplementation(t *testing.T) {
	t.Parallel()
	key := vectorKey(t)
	hash := sha256.Sum256(key.Public().MLDSA())
	const wantHash = "d666806e11cee19a7c989f7445f90dd419cf4d2d51db8c0fdb4c0f0a542238c9"
	if got := hex.EncodeToString(hash[:]); got != wantHash {
		t.Errorf("ML-DSA-65 public key hashes to %s", got)
	}
	id := key.ID()
	const wantID = "5c7438439da42c6871c13fdbe0b3711ef97255daf1c42e183def35bc33a65138"
	if got := hex.EncodeToString(id[:]); got != wantID {
		t.Errorf("id %s", got)
	}
	text, err := os.ReadFile("testdata/hybrid_signature.b64")
	if err != nil {
		t.Fatal(err)
	}
	signature, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Public().VerifyHybrid(LabelJoin, []byte("recorded message"), signature); err != nil {
		t.Error(err)
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	// FIPS 204, table 2.
	if mldsa65.PublicKeySize != 1952 || mldsa65.SignatureSize != 3309 || SignatureSize != 3373 ||
		PublicSize != 1985 {
		t.Errorf("sizes %d %d %d %d", mldsa65.PublicKeySize, mldsa65.SignatureSize, SignatureSize, PublicSize)
	}
}

func TestHybridSignatureNeedsBothHalves(t *testing.T) {
	t.Parallel()
	key, other := newKey(t), newKey(t)
	message := []byte("message")
	sign := func(key *Private, label Label, message []byte) []byte {
		signature, err := key.SignHybrid(label, message)
		if err != nil {
			t.Fatal(err)
		}
		return signature
	}
	good := sign(key, LabelJoin, message)
	if err := key.Public().VerifyHybrid(LabelJoin, message, good); err != nil {
		t.Fatal(err)
	}
	flip := func(at int) []byte {
		bad := slices.Clone(good)
		bad[at] ^= 1
		return bad
	}
	foreign := sign(other, LabelJoin, message)
	// A valid pair of signatures by two different nodes' keys.
	chimera, err := NewPublic(key.Public().Ed25519(), other.Public().MLDSA())
	if err != nil {
		t.Fatal(err)
	}
	mixed := slices.Concat(good[:ed25519.SignatureSize], foreign[ed25519.SignatureSize:])
	// S + L is the classical malleation of Ed25519.
	malleated := slices.Clone(good)
	addOrder(malleated[32:64])
	cases := []struct {
		name      string
		public    Public
		label     Label
		message   []byte
		signature []byte
		want      error
	}{
		{"Ed25519 half broken", key.Public(), LabelJoin, message, flip(5), ErrBadSignature},
		{"Ed25519 half malleated", key.Public(), LabelJoin, message, malleated, ErrBadSignature},
		{"ML-DSA half broken", key.Public(), LabelJoin, message, flip(64), ErrBadSignature},
		{"ML-DSA hint broken", key.Public(), LabelJoin, message, flip(SignatureSize - 1), ErrBadSignature},
		{
			"Ed25519 half of another node", key.Public(), LabelJoin, message,
			slices.Concat(foreign[:64], good[64:]), ErrBadSignature,
		},
		{"ML-DSA half of another node", key.Public(), LabelJoin, message, mixed, ErrBadSignature},
		{"halves of two nodes joined", chimera, LabelJoin, message, mixed, ErrBadSignature},
		{"other message", key.Public(), LabelJoin, []byte("massage"), good, ErrBadSignature},
		{"other label", key.Public(), LabelStockID, message, good, ErrBadSignature},
		{"other key", other.Public(), LabelJoin, message, good, ErrBadSignature},
		{"too short", key.Public(), LabelJoin, message, good[:SignatureSize-1], ErrMalformed},
		{"too long", key.Public(), LabelJoin, message, append(slices.Clone(good), 0), ErrMalformed},
		{"no key", Public{}, LabelJoin, message, good, ErrMalformed},
		{"unknown label", key.Public(), "something", message, good, ErrUnknownLabel},
		{"framing label", key.Public(), LabelHybrid, message, good, ErrUnknownLabel},
	}
	for _, c := range cases {
		if err := c.public.VerifyHybrid(c.label, c.message, c.signature); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := key.SignHybrid("something", message); !errors.Is(err, ErrUnknownLabel) {
		t.Errorf("signing under an unknown label: %v", err)
	}
}

// addOrder adds the order of the Ed25519 group to a little-endian number.
func addOrder(s []byte) {
	order, _ := hex.DecodeString("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
	carry := 0
	for i := range s {
		sum := int(s[i]) + int(order[i]) + carry
		s[i], carry = byte(sum), sum>>8
	}
}

func FuzzVerifyHybrid(f *testing.F) {
	seeds := [seedsSize]byte{1, 2, 3}
	key, err := fromSeeds(&seeds)
	if err != nil {
		f.Fatal(err)
	}
	good, err := key.SignHybrid(LabelJoin, []byte("m"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("m"), good)
	f.Add([]byte("m"), good[:100])
	f.Add([]byte{}, make([]byte, SignatureSize))
	f.Fuzz(func(t *testing.T, message, signature []byte) {
		if key.Public().VerifyHybrid(LabelJoin, message, signature) != nil {
			return
		}
		// Each process of the fuzzer signs its own seed, and the ML-DSA half differs each time; the Ed25519 half does not.
		if string(message) != "m" || !bytes.Equal(signature[:ed25519.SignatureSize], good[:ed25519.SignatureSize]) {
			t.Fatal("a signature that nobody made")
		}
	})
}
