// The whole table of one instruction set, from its traits (see gemm.h).
#pragma once

#include "attention.h"
#include "attention_int8.h"
#include "gates.h"
#include "gemm.h"
#include "heads.h"
#include "passes.h"

namespace {

template <class Isa>
constexpr Kernel kernel_of() {
    using G = Gemm<Isa>;
    return {Isa::TILE,        G::PANEL,    G::packed_size,        G::pack,              G::row_stride, G::quantize,
            G::quantize_int8, G::multiply, Attend<Isa>::scratch, Attend<Isa>::attend, Attend<Isa>::product,
            across_rows, down_row, turn<Isa>, gate<Isa>,
            Isa::INTEGERS_PAY, IntegerAttend<Isa>::scratch, IntegerAttend<Isa>::attend};
}

}  // namespace
