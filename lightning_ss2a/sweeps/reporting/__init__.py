"""What a sweep leaves for people: tables, pictures, TensorBoard's HParams tab."""
