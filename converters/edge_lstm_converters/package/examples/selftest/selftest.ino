// Runs the model's own test on the board, then one input of zeros, timed.
#include <@name@.h>

static @name@_state_t state;
static @name@_input_t x[@steps@ * @name@_INPUT_SIZE];
static @name@_output_t y[@outputs@ * @name@_OUTPUT_SIZE];

void setup() {
  Serial.begin(115200);
  while (!Serial) {
  }
  Serial.println(@name@_selftest(&state) == 0 ? "selftest passed" : "selftest FAILED");
}

void loop() {
  const unsigned long start = micros();
  @name@_run(&state, x, @steps@, y);
  Serial.print(micros() - start);
  Serial.println(" us");
  delay(1000);
}
