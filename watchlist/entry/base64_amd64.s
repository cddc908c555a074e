#include "textflag.h"

// Base64 with AVX2, after the method that Wojciech Mula has published: each character is put into
// one of a few classes by its two halves, low and high. Two tables give for each half a set of
// bits, and a character is of base64 where both sets have nothing in common. What is to be added
// to it to get its value depends on its high half alone, save for '/', which shares that with '+'.
//
// All tables are there twice, since a shuffle works on each 16 bytes by themselves.

#define TWICE(name, lo, hi) \
	DATA name<>+0(SB)/8, $lo \
	DATA name<>+8(SB)/8, $hi \
	DATA name<>+16(SB)/8, $lo \
	DATA name<>+24(SB)/8, $hi \
	GLOBL name<>(SB), RODATA|NOPTR, $32

// Sets by the low half: 15 11 11 11 11 11 11 11 11 11 13 1a 1b 1b 1b 1a.
TWICE(lows, 0x1111111111111115, 0x1a1b1b1b1a131111)
// Sets by the high half: 10 10 01 02 04 08 04 08, and 10 for bytes that are no ASCII.
TWICE(highs, 0x0804080402011010, 0x1010101010101010)
// What is added, by the high half: for '/' (its place is one lower) 16, for '+' 19, for digits 4,
// for upper case -65, for lower case -71.
TWICE(rolls, 0xb9b9bfbf04131000, 0x0000000000000000)
// '/', and what keeps the lower half of a byte and leaves its shuffle alone.
TWICE(slash, 0x2f2f2f2f2f2f2f2f, 0x2f2f2f2f2f2f2f2f)
// Two values of six bits each become twelve, two of those twenty-four.
TWICE(twelve, 0x0140014001400140, 0x0140014001400140)
TWICE(twentyfour, 0x0001100000011000, 0x0001100000011000)
// Three bytes of each four, the highest first.
TWICE(order, 0x090a040506000102, 0xffffffff0c0d0e08)

// The six words of the two halves that hold anything.
DATA words<>+0(SB)/4, $0
DATA words<>+4(SB)/4, $1
DATA words<>+8(SB)/4, $2
DATA words<>+12(SB)/4, $4
DATA words<>+16(SB)/4, $5
DATA words<>+20(SB)/4, $6
DATA words<>+24(SB)/4, $7
DATA words<>+28(SB)/4, $7
GLOBL words<>(SB), RODATA|NOPTR, $32

// func decodeBlocks(dst, src *byte, n int) int
TEXT ·decodeBlocks(SB), NOSPLIT, $0-32
	MOVQ    dst+0(FP), DI
	MOVQ    src+8(FP), SI
	MOVQ    n+16(FP), CX
	XORQ    AX, AX
	VMOVDQU lows<>(SB), Y8
	VMOVDQU highs<>(SB), Y9
	VMOVDQU rolls<>(SB), Y10
	VMOVDQU slash<>(SB), Y11
	VMOVDQU twelve<>(SB), Y12
	VMOVDQU twentyfour<>(SB), Y13
	VMOVDQU order<>(SB), Y14
	VMOVDQU words<>(SB), Y15

block:
	CMPQ    AX, CX
	JGE     done
	VMOVDQU (SI), Y0
	VPSRLD  $4, Y0, Y1
	VPAND   Y11, Y1, Y1    // high halves, perhaps with a bit 5 that a shuffle leaves out
	VPAND   Y11, Y0, Y2    // low halves, the same
	VPSHUFB Y1, Y9, Y3
	VPSHUFB Y2, Y8, Y4
	VPTEST  Y3, Y4
	JNZ     done           // something is no base64
	VPCMPEQB Y11, Y0, Y5   // -1 for '/'
	VPADDB  Y1, Y5, Y5
	VPSHUFB Y5, Y10, Y5
	VPADDB  Y5, Y0, Y0     // values of six bits
	VPMADDUBSW Y12, Y0, Y0
	VPMADDWD Y13, Y0, Y0
	VPSHUFB Y14, Y0, Y0
	VPERMD  Y0, Y15, Y0
	VMOVDQU Y0, (DI)
	ADDQ    $32, SI
	ADDQ    $24, DI
	INCQ    AX
	JMP     block

done:
	VZEROUPPER
	MOVQ    AX, ret+24(FP)
	RET
