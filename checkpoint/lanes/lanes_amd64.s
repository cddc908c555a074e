#include "textflag.h"

// The compression function of SHA-256 (FIPS 180-4, 6.2.2) for sixteen messages at once, with
// AVX-512: each register holds one word of all of them, lane by lane. Sixteen registers hold the
// words of the message schedule that are needed still, eight the working variables; a third
// operand of three-way logic makes a sum of rotations, a choice or a majority one instruction.
// A block of all sixteen takes as long as about six of one message with the processor's own SHA
// instructions.

// The constants K, in their order.
#define K(i, a, b, c, d) \
	DATA k<>+(16*i)(SB)/4, $a \
	DATA k<>+(16*i+4)(SB)/4, $b \
	DATA k<>+(16*i+8)(SB)/4, $c \
	DATA k<>+(16*i+12)(SB)/4, $d

K(0, 0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5)
K(1, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5)
K(2, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3)
K(3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174)
K(4, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc)
K(5, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da)
K(6, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7)
K(7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967)
K(8, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13)
K(9, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85)
K(10, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3)
K(11, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070)
K(12, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5)
K(13, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3)
K(14, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208)
K(15, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2)
GLOBL k<>(SB), RODATA|NOPTR, $256

DATA flip<>+0(SB)/8, $0x0405060700010203
DATA flip<>+8(SB)/8, $0x0c0d0e0f08090a0b
GLOBL flip<>(SB), RODATA|NOPTR, $16

// The next block of one lane, its words in the order of the processor.
#define LOAD(lane, to) \
	MOVQ      (8*lane)(DX), AX \
	VMOVDQU32 (AX)(BX*1), to \
	VPSHUFB   Z31, to, to

// Four lanes by four words, in each quarter of a register.
#define FOUR(r0, r1, r2, r3, t0, t1, t2, t3) \
	VPUNPCKLDQ  r1, r0, t0 \
	VPUNPCKHDQ  r1, r0, t1 \
	VPUNPCKLDQ  r3, r2, t2 \
	VPUNPCKHDQ  r3, r2, t3 \
	VPUNPCKLQDQ t2, t0, r0 \
	VPUNPCKHQDQ t2, t0, r1 \
	VPUNPCKLQDQ t3, t1, r2 \
	VPUNPCKHQDQ t3, t1, r3

// Four quarters by four registers.
#define QUARTERS(r0, r1, r2, r3, t0, t1, t2, t3) \
	VSHUFI32X4 $0x44, r1, r0, t0 \
	VSHUFI32X4 $0xee, r1, r0, t1 \
	VSHUFI32X4 $0x44, r3, r2, t2 \
	VSHUFI32X4 $0xee, r3, r2, t3 \
	VSHUFI32X4 $0x88, t2, t0, r0 \
	VSHUFI32X4 $0xdd, t2, t0, r1 \
	VSHUFI32X4 $0x88, t3, t1, r2 \
	VSHUFI32X4 $0xdd, t3, t1, r3

// One round, with the word w of the message: a and e move on by one name, so that the next round
// gets the variables in another order. Z24 to Z28 are for passing.
#define ROUND(i, w, a, b, c, d, e, f, g, h) \
	VPADDD.BCST (4*i)(R8), w, Z24 \
	VPRORD      $6, e, Z25 \
	VPRORD      $11, e, Z26 \
	VPRORD      $25, e, Z27 \
	VMOVDQA32   e, Z28 \
	VPADDD      Z24, h, h \
	VPTERNLOGD  $0x96, Z27, Z26, Z25 \
	VPTERNLOGD  $0xca, g, f, Z28 \
	VPADDD      Z25, h, h \
	VPADDD      Z28, h, h \
	VPRORD      $2, a, Z25 \
	VPRORD      $13, a, Z26 \
	VPRORD      $22, a, Z27 \
	VMOVDQA32   a, Z28 \
	VPADDD      h, d, d \
	VPTERNLOGD  $0x96, Z27, Z26, Z25 \
	VPTERNLOGD  $0xe8, c, b, Z28 \
	VPADDD      Z25, h, h \
	VPADDD      Z28, h, h

// The word of sixteen rounds later, in the place of w0.
#define NEXT(w0, w1, w9, w14) \
	VPRORD     $7, w1, Z25 \
	VPRORD     $18, w1, Z26 \
	VPSRLD     $3, w1, Z27 \
	VPADDD     w9, w0, w0 \
	VPTERNLOGD $0x96, Z27, Z26, Z25 \
	VPRORD     $17, w14, Z26 \
	VPRORD     $19, w14, Z27 \
	VPSRLD     $10, w14, Z28 \
	VPADDD     Z25, w0, w0 \
	VPTERNLOGD $0x96, Z28, Z27, Z26 \
	VPADDD     Z26, w0, w0

#define ADD(i, z) \
	VPADDD    (64*i)(DI), z, z \
	VMOVDQU32 z, (64*i)(DI)

// func blocks(state *[8][16]uint32, from *[16]*byte, n int)
// Requires: AVX512F, AVX512BW
TEXT ·blocks(SB), NOSPLIT, $0-24
	MOVQ state+0(FP), DI
	MOVQ from+8(FP), DX
	MOVQ n+16(FP), CX
	XORQ BX, BX
	TESTQ CX, CX
	JLE  done

block:
	// Lane by lane to word by word.
	VBROADCASTI32X4 flip<>(SB), Z31
	LOAD(0, Z0)
	LOAD(1, Z1)
	LOAD(2, Z2)
	LOAD(3, Z3)
	LOAD(4, Z4)
	LOAD(5, Z5)
	LOAD(6, Z6)
	LOAD(7, Z7)
	LOAD(8, Z8)
	LOAD(9, Z9)
	LOAD(10, Z10)
	LOAD(11, Z11)
	LOAD(12, Z12)
	LOAD(13, Z13)
	LOAD(14, Z14)
	LOAD(15, Z15)
	FOUR(Z0, Z1, Z2, Z3, Z16, Z17, Z18, Z19)
	FOUR(Z4, Z5, Z6, Z7, Z20, Z21, Z22, Z23)
	FOUR(Z8, Z9, Z10, Z11, Z24, Z25, Z26, Z27)
	FOUR(Z12, Z13, Z14, Z15, Z28, Z29, Z30, Z31)
	QUARTERS(Z0, Z4, Z8, Z12, Z16, Z17, Z18, Z19)
	QUARTERS(Z1, Z5, Z9, Z13, Z20, Z21, Z22, Z23)
	QUARTERS(Z2, Z6, Z10, Z14, Z24, Z25, Z26, Z27)
	QUARTERS(Z3, Z7, Z11, Z15, Z28, Z29, Z30, Z31)

	VMOVDQU32 0(DI), Z16
	VMOVDQU32 64(DI), Z17
	VMOVDQU32 128(DI), Z18
	VMOVDQU32 192(DI), Z19
	VMOVDQU32 256(DI), Z20
	VMOVDQU32 320(DI), Z21
	VMOVDQU32 384(DI), Z22
	VMOVDQU32 448(DI), Z23
	LEAQ k<>(SB), R8
	MOVQ $3, R9 // sixteen rounds each, and sixteen more that need no words to come

rounds:
	ROUND(0, Z0, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	NEXT(Z0, Z1, Z9, Z14)
	ROUND(1, Z1, Z23, Z16, Z17, Z18, Z19, Z20, Z21, Z22)
	NEXT(Z1, Z2, Z10, Z15)
	ROUND(2, Z2, Z22, Z23, Z16, Z17, Z18, Z19, Z20, Z21)
	NEXT(Z2, Z3, Z11, Z0)
	ROUND(3, Z3, Z21, Z22, Z23, Z16, Z17, Z18, Z19, Z20)
	NEXT(Z3, Z4, Z12, Z1)
	ROUND(4, Z4, Z20, Z21, Z22, Z23, Z16, Z17, Z18, Z19)
	NEXT(Z4, Z5, Z13, Z2)
	ROUND(5, Z5, Z19, Z20, Z21, Z22, Z23, Z16, Z17, Z18)
	NEXT(Z5, Z6, Z14, Z3)
	ROUND(6, Z6, Z18, Z19, Z20, Z21, Z22, Z23, Z16, Z17)
	NEXT(Z6, Z7, Z15, Z4)
	ROUND(7, Z7, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z16)
	NEXT(Z7, Z8, Z0, Z5)
	ROUND(8, Z8, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	NEXT(Z8, Z9, Z1, Z6)
	ROUND(9, Z9, Z23, Z16, Z17, Z18, Z19, Z20, Z21, Z22)
	NEXT(Z9, Z10, Z2, Z7)
	ROUND(10, Z10, Z22, Z23, Z16, Z17, Z18, Z19, Z20, Z21)
	NEXT(Z10, Z11, Z3, Z8)
	ROUND(11, Z11, Z21, Z22, Z23, Z16, Z17, Z18, Z19, Z20)
	NEXT(Z11, Z12, Z4, Z9)
	ROUND(12, Z12, Z20, Z21, Z22, Z23, Z16, Z17, Z18, Z19)
	NEXT(Z12, Z13, Z5, Z10)
	ROUND(13, Z13, Z19, Z20, Z21, Z22, Z23, Z16, Z17, Z18)
	NEXT(Z13, Z14, Z6, Z11)
	ROUND(14, Z14, Z18, Z19, Z20, Z21, Z22, Z23, Z16, Z17)
	NEXT(Z14, Z15, Z7, Z12)
	ROUND(15, Z15, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z16)
	NEXT(Z15, Z0, Z8, Z13)
	ADDQ $64, R8
	DECQ R9
	JNZ  rounds

	ROUND(0, Z0, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	ROUND(1, Z1, Z23, Z16, Z17, Z18, Z19, Z20, Z21, Z22)
	ROUND(2, Z2, Z22, Z23, Z16, Z17, Z18, Z19, Z20, Z21)
	ROUND(3, Z3, Z21, Z22, Z23, Z16, Z17, Z18, Z19, Z20)
	ROUND(4, Z4, Z20, Z21, Z22, Z23, Z16, Z17, Z18, Z19)
	ROUND(5, Z5, Z19, Z20, Z21, Z22, Z23, Z16, Z17, Z18)
	ROUND(6, Z6, Z18, Z19, Z20, Z21, Z22, Z23, Z16, Z17)
	ROUND(7, Z7, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z16)
	ROUND(8, Z8, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	ROUND(9, Z9, Z23, Z16, Z17, Z18, Z19, Z20, Z21, Z22)
	ROUND(10, Z10, Z22, Z23, Z16, Z17, Z18, Z19, Z20, Z21)
	ROUND(11, Z11, Z21, Z22, Z23, Z16, Z17, Z18, Z19, Z20)
	ROUND(12, Z12, Z20, Z21, Z22, Z23, Z16, Z17, Z18, Z19)
	ROUND(13, Z13, Z19, Z20, Z21, Z22, Z23, Z16, Z17, Z18)
	ROUND(14, Z14, Z18, Z19, Z20, Z21, Z22, Z23, Z16, Z17)
	ROUND(15, Z15, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z16)

	ADD(0, Z16)
	ADD(1, Z17)
	ADD(2, Z18)
	ADD(3, Z19)
	ADD(4, Z20)
	ADD(5, Z21)
	ADD(6, Z22)
	ADD(7, Z23)
	ADDQ $64, BX
	DECQ CX
	JNZ  block

done:
	VZEROUPPER
	RET
