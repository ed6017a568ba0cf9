/* MODEL(step) is the package's NAME_step. build.py gives EDGE_LSTM_NAME and EDGE_LSTM_HEADER. */
#ifndef EDGE_LSTM_MODEL_H
#define EDGE_LSTM_MODEL_H

#include EDGE_LSTM_HEADER

#define EDGE_LSTM_JOIN_(name, what) name##_##what
#define EDGE_LSTM_JOIN(name, what) EDGE_LSTM_JOIN_(name, what)
#define MODEL(what) EDGE_LSTM_JOIN(EDGE_LSTM_NAME, what)

#endif
