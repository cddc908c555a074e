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

// With AVX-512 VBMI a table of 128 bytes is one instruction: the value of each character, with its
// top bit set where it has none.
DATA values<>+0(SB)/8, $0x8080808080808080
DATA values<>+8(SB)/8, $0x8080808080808080
DATA values<>+16(SB)/8, $0x8080808080808080
DATA values<>+24(SB)/8, $0x8080808080808080
DATA values<>+32(SB)/8, $0x8080808080808080
DATA values<>+40(SB)/8, $0x3f8080803e808080
DATA values<>+48(SB)/8, $0x3b3a393837363534
DATA values<>+56(SB)/8, $0x8080808080803d3c
DATA values<>+64(SB)/8, $0x0605040302010080
DATA values<>+72(SB)/8, $0x0e0d0c0b0a090807
DATA values<>+80(SB)/8, $0x161514131211100f
DATA values<>+88(SB)/8, $0x8080808080191817
DATA values<>+96(SB)/8, $0x201f1e1d1c1b1a80
DATA values<>+104(SB)/8, $0x2827262524232221
DATA values<>+112(SB)/8, $0x302f2e2d2c2b2a29
DATA values<>+120(SB)/8, $0x8080808080333231
GLOBL values<>(SB), RODATA|NOPTR, $128

// Three bytes of each four, the highest first; the last sixteen are overwritten.
DATA three<>+0(SB)/8, $0x090a040506000102
DATA three<>+8(SB)/8, $0x161011120c0d0e08
DATA three<>+16(SB)/8, $0x1c1d1e18191a1415
DATA three<>+24(SB)/8, $0x292a242526202122
DATA three<>+32(SB)/8, $0x363031322c2d2e28
DATA three<>+40(SB)/8, $0x3c3d3e38393a3435
DATA three<>+48(SB)/8, $0
DATA three<>+56(SB)/8, $0
GLOBL three<>(SB), RODATA|NOPTR, $64

// func decodeWide(dst, src *byte, n int) int
// Requires: AVX512F, AVX512BW, AVX512VBMI
TEXT ·decodeWide(SB), NOSPLIT, $0-32
	MOVQ           dst+0(FP), DI
	MOVQ           src+8(FP), SI
	MOVQ           n+16(FP), CX
	XORQ           AX, AX
	VMOVDQU64      values<>+0(SB), Z8
	VMOVDQU64      values<>+64(SB), Z9
	VBROADCASTI64X4 twelve<>(SB), Z10
	VBROADCASTI64X4 twentyfour<>(SB), Z11
	VMOVDQU64      three<>(SB), Z12

wide:
	CMPQ       AX, CX
	JGE        end
	VMOVDQU64  (SI), Z0
	VMOVDQA64  Z0, Z1
	VPERMI2B   Z9, Z8, Z1  // values of six bits
	VPORQ      Z1, Z0, Z2
	VPMOVB2M   Z2, K1
	KTESTQ     K1, K1
	JNZ        end         // something is no base64
	VPMADDUBSW Z10, Z1, Z1
	VPMADDWD   Z11, Z1, Z1
	VPERMB     Z1, Z12, Z1
	VMOVDQU64  Z1, (DI)
	ADDQ       $64, SI
	ADDQ       $48, DI
	INCQ       AX
	JMP        wide

end:
	VZEROUPPER
	MOVQ AX, ret+24(FP)
	RET
