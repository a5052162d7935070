"""The caretaker: it keeps jobs moving when messages, workers or uploads are lost."""
