/* Sizes that only the compiler knows, read from the image by build.py; no part of the model. */
#include "model.h"

#define PROBE __attribute__((section(".probe"), used))

PROBE const unsigned edge_lstm_state_bytes = sizeof(MODEL(state_t));
PROBE const unsigned edge_lstm_input_bytes = sizeof(MODEL(input_t));
PROBE const unsigned edge_lstm_output_bytes = sizeof(MODEL(output_t));
