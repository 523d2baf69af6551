package main

import (
	"fmt"
	"io"
	"strings"

	"rsc.io/qr"
)

// quietModules is the white border that QR readers need (ISO/IEC 18004 section 5.3.8 asks for 4; half is enough on
// screens and saves lines).
const quietModules = 2

// writeQR draws text as a QR code with half-block characters, two modules per character cell, dark on light whatever
// the terminal's own colours are.
func writeQR(w io.Writer, text string) error {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return fmt.Errorf("draw QR code: %w", err)
	}
	dark := func(x, y int) bool {
		x, y = x-quietModules, y-quietModules
		return x >= 0 && y >= 0 && x < code.Size && y < code.Size && code.Black(x, y)
	}
	var b strings.Builder
	side := code.Size + 2*quietModules
	for y := 0; y < side; y += 2 {
		b.WriteString("\x1b[30;47m")
		for x := range side {
			switch top, bottom := dark(x, y), y+1 < side && dark(x, y+1); {
			case top && bottom:
				b.WriteRune('█')
			case top:
				b.WriteRune('▀')
			case bottom:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteString("\x1b[0m\n")
	}
	_, err = io.WriteString(w, b.String())
	return err
}
