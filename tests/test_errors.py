import gpu_nn
from gpu_nn.errors import not_one_of, unknown_name

NAMES = ("relu", "sigmoid", "tanh")


def test_an_unknown_name_is_answered_with_the_known_ones_and_the_nearest():
    error = unknown_name("activation", "Relue", NAMES)
    assert isinstance(error, ValueError)
    assert str(error) == "activation='Relue' is not one of relu, sigmoid, tanh. Did you mean 'relu'?"


def test_no_name_is_offered_for_one_that_is_near_to_none():
    assert not_one_of("zzz", NAMES) == "'zzz' is not one of relu, sigmoid, tanh."


def test_what_is_not_text_is_answered_too():
    assert not_one_of(None, NAMES).startswith("None is not one of relu")


def test_a_word_that_people_use_for_a_name_is_answered_with_that_name():
    assert not_one_of("logistic", NAMES, {"logistic": "sigmoid"}).endswith("Did you mean 'sigmoid'?")


def test_every_error_has_a_class_of_its_own():
    assert issubclass(gpu_nn.DataError, ValueError)
    assert not issubclass(gpu_nn.DeviceError, ValueError)
    assert not issubclass(gpu_nn.TrainingDiverged, ValueError)


def test_a_message_about_data_is_one_printable_line_whatever_it_quotes():
    error = gpu_nn.DataError("a\r\n  b\tc\x1b[31m \x00\ud800\u2028é")
    assert str(error) == r"a b c\x1b[31m \x00\ud800 é"
    assert error.args == (str(error),)


def test_a_long_message_keeps_its_beginning_and_its_end():
    message = str(gpu_nn.DataError("begin" + "x" * 100_000 + "end"))
    assert len(message) < 2000
    assert message.startswith("begin")
    assert message.endswith("end")


def test_divergence_carries_its_step_and_says_what_to_do():
    error = gpu_nn.TrainingDiverged(17, float("inf"))
    assert (error.step, error.loss) == (17, float("inf"))
    assert "the loss became inf at step 17" in str(error)
    assert "Lower the learning rate" in str(error)
