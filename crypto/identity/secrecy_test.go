package identity

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
)

func TestPrivateKeysDoNotPrint(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	var out bytes.Buffer
	type holder struct {
		Key    *Private
		Signer crypto.Signer
		hidden *Private
		value  Private
	}
	held := holder{key, key.Signer(), key, *key}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
		fmt.Fprintf(&out, verb+"\n", key)
		fmt.Fprintf(&out, verb+"\n", key.Signer())
		fmt.Fprintf(&out, verb+"\n", held)
		fmt.Fprintf(&out, verb+"\n", []any{key, &held})
	}
	out.WriteString(key.String() + key.GoString())
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Info("m", "key", key, "signer", key.Signer(), "held", held)
	}
	encoded, err := json.Marshal(held)
	if err == nil {
		t.Errorf("JSON of a private key: %s", encoded)
	}
	assertNoSecrets(t, key, out.String()+string(encoded))
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing was printed")
	}
}

func assertNoSecrets(t *testing.T, key *Private, out string) {
	t.Helper()
	for name, secret := range map[string][]byte{
		"Ed25519 seed": key.keys.seeds[:32], "ML-DSA seed": key.keys.seeds[32:],
		"ML-DSA key": key.keys.mldsa.Bytes()[32:64],
	} {
		part := secret[:12]
		list := strings.Trim(fmt.Sprint(part), "[]")
		for _, form := range []string{
			string(part), hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)),
			base64.StdEncoding.EncodeToString(part), list, strings.ReplaceAll(list, " ",
				", "), strings.ReplaceAll(list, " ", ","),
		} {
			if strings.Contains(out, form) {
				t.Errorf("%s leaks", name)
			}
		}
	}
}

func TestWipe(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	signer := key.Signer()
	id := key.ID()
	key.Wipe()
	if key.keys.seeds != [seedsSize]byte{} || !bytes.Equal(key.keys.ed, make([]byte, len(key.keys.ed))) {
		t.Error("seeds or Ed25519 key left")
	}
	if *key.keys.mldsa != (mldsa65.PrivateKey{}) {
		t.Error("ML-DSA key left")
	}
	if key.ID() != id {
		t.Error("the id went too")
	}
	if _, err := key.SignHybrid(LabelJoin, nil); !errors.Is(err, ErrWiped) {
		t.Errorf("SignHybrid: %v", err)
	}
	if _, err := signer.Sign(nil, nil, crypto.Hash(0)); !errors.Is(err, ErrWiped) {
		t.Errorf("Signer: %v", err)
	}
	if _, err := key.Encode(); !errors.Is(err, ErrWiped) {
		t.Errorf("Encode: %v", err)
	}
}
