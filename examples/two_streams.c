/* Two weather stations, one model: two states, one set of weights.
 *
 *   edge-lstm convert model.pt --layers layers.toml --calib calibration.npz -o out --name weather --to c
 *   make -C out/weather_c
 *   cc -Iout/weather_c/src two_streams.c out/weather_c/build/libweather.a -o two_streams
 *   ./two_streams < readings.txt
 *
 * A line of readings.txt holds 2 x 7 numbers; a line of the output the forecast of both stations,
 * after all that they have reported. On a board, the same loop runs on what the sensors say.
 */
#include "weather_float.h"

#include <stdio.h>

#define STATIONS 2

static weather_state_t stations[STATIONS];

static int read_station(weather_input_t *x)
{
    for (int k = 0; k < weather_INPUT_SIZE; k++) {
        float value;
        if (scanf("%f", &value) != 1) {
            return 0;
        }
        x[k] = weather_quantize(value);
    }
    return 1;
}

int main(void)
{
    weather_input_t x[weather_INPUT_SIZE];
    weather_output_t y[weather_OUTPUT_SIZE];
    if (weather_selftest(&stations[0]) != 0) {
        fprintf(stderr, "this build computes something else than the model\n");
        return 1;
    }
    for (int k = 0; k < STATIONS; k++) {
        weather_init(&stations[k]);
    }
    for (int k = 0; read_station(x); k = (k + 1) % STATIONS) {
        weather_step(&stations[k], x, y);
        printf("%.9g%c", (double)weather_dequantize(y[0]), k + 1 == STATIONS ? '\n' : ' ');
    }
    return 0;
}
